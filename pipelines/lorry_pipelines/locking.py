"""One run of a task at a time on this machine."""

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
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        for task in sorted(tasks):
            stream = stack.enter_context((folder / f"{task}.lock").open("a+", encoding="utf-8"))
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                stream.seek(0)
                raise ConflictError(
                    f"another run of it is going on (process {stream.read().strip() or 'unknown'})",
                    where=task,
                    todo="wait for it to end, or stop it; nothing was started",
                ) from error
            stream.truncate(0)
            stream.write(f"{os.getpid()}\n")
            stream.flush()
        yield
