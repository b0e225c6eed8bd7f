"""One run of a task at a time on this machine, and one run of a study."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from lorry_registry.errors import ConflictError
from lorry_registry.files.file_locks import read_holder, take_lock


@contextlib.contextmanager
def hold_tasks(folder: Path, tasks: Sequence[str]) -> Iterator[None]:
    """Hold the locks of tasks; the system releases them when this process ends, however it ends.

    Two machines that share a store need no lock: the ledger's compare-and-swap lets only one of them promote.

    Raises:
        ConflictError: Another run holds one of them; the message names the task and that run's process.
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
