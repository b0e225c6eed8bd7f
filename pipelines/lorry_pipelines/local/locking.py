"""One run of a task at a time on this machine, and one training of a study's trial."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lorry_registry.errors import ConflictError


@contextlib.contextmanager
def hold_tasks(folder: Path, tasks: Sequence[str]) -> Iterator[None]:
    """Hold the locks of tasks; the system releases them when this process ends, however it ends.

    Two machines that share a store need no lock: the ledger's compare-and-swap lets only one of them promote.

    Raises:
        ConflictError: Another run holds one of them; which and whose is said.
    """
    with contextlib.ExitStack() as stack:
        for task in sorted(tasks):
            path = folder / f"{task}.lock"
            if not take_lock(stack, path):
                raise ConflictError(
                    f"another run of it is going on (process {read_holder(path)})",
                    where=task,
                    todo="wait for it to end, or stop it; nothing was started",
                )
        yield


def take_lock(stack: contextlib.ExitStack, path: Path, *, waits: bool = False) -> bool:
    """Take the lock of a file until a stack is closed; return whether it was to be had.

    Args:
        stack: What releases it.
        path: The file; it is made where it is missing.
        waits: Whether to wait for whoever holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = stack.enter_context(path.open("a+", encoding="utf-8"))
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    stream.truncate(0)
    stream.write(f"{os.getpid()}\n")
    stream.flush()
    return True


def read_holder(path: Path) -> str:
    """Return the process that holds a lock, as far as it says so."""
    return path.read_text("utf-8").strip() or "unknown"
