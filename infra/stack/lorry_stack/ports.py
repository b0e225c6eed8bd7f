"""Ports of the loopback that are free."""

import contextlib
import socket
from collections.abc import Iterator

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Return whether nothing listens at a port of the loopback."""
    with contextlib.closing(socket.socket()) as probe:
        # As servers do: a connection that was closed a moment ago is no reason to wait.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def find_free_ports(count: int) -> list[int]:
    """Return different ports that are free now."""
    with contextlib.ExitStack() as stack:
        return list(_bind_ports(stack, count))


def _bind_ports(stack: contextlib.ExitStack, count: int) -> Iterator[int]:
    for _ in range(count):
        probe = stack.enter_context(contextlib.closing(socket.socket()))
        probe.bind((LOOPBACK, 0))
        yield int(probe.getsockname()[1])
