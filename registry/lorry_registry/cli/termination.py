"""SIGTERM, as CI and Kubernetes end a command: it ends what it has started, as on Ctrl-C."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

EXIT_TERMINATED = 143


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


@contextlib.contextmanager
def raise_on_termination() -> Iterator[None]:
    """Let SIGTERM raise :class:`Terminated` once, in the main thread; any further one is ignored.

    Without it the process ends at once, and leases stay until they run out.
    """

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    former = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
