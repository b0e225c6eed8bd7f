"""Ports of the loopback that are free."""

import contextlib
import socket
from collections.abc import Iterator

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Return whether nothing listens at a port of the loopback."""
    with contextlib.closing(socket.socket()) as listener:
        # As servers do: a connection that was closed a moment ago is no reason to wait.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def find_free_ports(count: int) -> list[int]:
    """Return different ports that are free now."""
    with contextlib.ExitStack() as stack:
        return list(_bind_ports(stack, count))


def _bind_ports(stack: contextlib.ExitStack, count: int) -> Iterator[int]:
    for _ in range(count):
        listener = stack.enter_context(contextlib.closing(socket.socket()))
        listener.bind((LOOPBACK, 0))
        yield int(listener.getsockname()[1])
