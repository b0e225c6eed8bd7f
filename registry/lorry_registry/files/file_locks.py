"""Locks between processes of one machine.

A lock is a file on which its holder has ``flock``. The system releases it when the holder ends, however it
ends, so a killed holder leaves no lock behind. Only the holder may remove the file: one that waited for it
then finds that its name leads elsewhere, and locks the file that is there now.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a file, after waiting for its holder.

    Args:
        path: The file; it is created where it is missing, in a folder that exists. Its content stays.

    Raises:
        OSError: The file cannot be opened for writing.
    """
    while True:
        with path.open("a") as stream:
            _lock(stream, waits=True)
            if _is_at(stream, path):
                yield
                return


def take_lock(stack: contextlib.ExitStack, path: Path, *, waits: bool = False) -> bool:
    """Take the lock of a file until a stack is closed, and write into the file which process holds it.

    Args:
        stack: What releases the lock.
        path: The file; it is created where it is missing, with its folder.
        waits: Whether to wait for its holder.

    Returns:
        Whether the lock was free; always true after waiting.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as own:
        stream = own.enter_context(path.open("a+", encoding="utf-8"))
        if not _lock(stream, waits=waits):
            return False
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        stack.push(own.pop_all())
    return True


def share_lock(stack: contextlib.ExitStack, path: Path) -> None:
    """Take the lock of a file until a stack is closed, together with others that share it.

    Args:
        stack: What releases the lock.
        path: The file; it is created where it is missing, with its folder. Its content stays.

    Raises:
        OSError: The file cannot be opened for writing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with contextlib.ExitStack() as own:
            stream = own.enter_context(path.open("a"))
            fcntl.flock(stream, fcntl.LOCK_SH)
            if _is_at(stream, path):
                stack.push(own.pop_all())
                return


def try_lock(stack: contextlib.ExitStack, path: Path) -> bool:
    """Take the lock of a file until a stack is closed, unless anybody holds or shares it.

    Args:
        stack: What releases the lock.
        path: The file; it is created where it is missing, in a folder that exists. Its content stays.

    Returns:
        Whether the lock was free.

    Raises:
        OSError: The file cannot be opened for writing.
    """
    with contextlib.ExitStack() as own:
        stream = own.enter_context(path.open("a"))
        if not _lock(stream, waits=False) or not _is_at(stream, path):
            return False
        stack.push(own.pop_all())
    return True


def read_holder(path: Path) -> str:
    """Return the process that holds a lock which :func:`take_lock` took, or ``unknown``.

    It may be the former holder's, as long as the present one has not written its own.
    """
    return path.read_text("utf-8").strip() or "unknown"


def _is_at(stream: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(stream: IO[str], *, waits: bool) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
