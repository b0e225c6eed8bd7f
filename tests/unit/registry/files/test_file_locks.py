"""Locks between real processes, some of which are killed."""

import ast
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lorry_registry.files.file_locks import hold_lock, read_holder, take_lock

ROOT = Path(__file__).parents[4]
StartScript = Callable[..., "subprocess.Popen[str]"]

# Takes a lock, starts a child if asked, says so, and holds the lock until it is killed.
_HOLD = """
import contextlib, subprocess, sys, time
from pathlib import Path
from lorry_registry.files.file_locks import hold_lock, take_lock

path, way, child = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with contextlib.ExitStack() as stack:
    if way == "hold":
        stack.enter_context(hold_lock(path))
    else:
        assert take_lock(stack, path, waits=True)
    if child == "child":
        sleeper = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False,
        )
        print(sleeper.pid, flush=True)
    print("held", flush=True)
    time.sleep(600)
"""

_COUNT = """
import sys
from pathlib import Path
from lorry_registry.files.file_locks import hold_lock

lock, counter = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(100):
    with hold_lock(lock):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


def is_free(path: Path) -> bool:
    with contextlib.ExitStack() as stack:
        return take_lock(stack, path)


def start_holder(start_script: StartScript, path: Path, way: str = "take") -> "subprocess.Popen[str]":
    holder = start_script(_HOLD, path, way, "alone")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_lock_is_taken_and_released(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "reviews.lock"
    with contextlib.ExitStack() as stack:
        assert take_lock(stack, path)
        assert read_holder(path) == str(os.getpid())
        # A lock belongs to an open file, not to a process.
        assert not is_free(path)
    assert is_free(path)
    assert path.exists()


@pytest.mark.parametrize("way", ["hold", "take"])
def test_a_lock_of_another_process_is_not_free(tmp_path: Path, start_script: StartScript, way: str) -> None:
    path = tmp_path / "lock"
    holder = start_holder(start_script, path, way)
    assert not is_free(path)
    assert read_holder(path) == (str(holder.pid) if way == "take" else "unknown")


@pytest.mark.parametrize("way", ["hold", "take"])
def test_a_killed_holder_leaves_no_lock(tmp_path: Path, start_script: StartScript, way: str) -> None:
    path = tmp_path / "lock"
    holder = start_script(_HOLD, path, way, "child")
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        # Not even through a process that the holder had started.
        os.kill(child, 0)
        assert is_free(path)
    finally:
        os.kill(child, signal.SIGKILL)


def test_who_waits_gets_the_lock_of_a_killed_holder(tmp_path: Path, start_script: StartScript) -> None:
    path = tmp_path / "lock"
    first = start_holder(start_script, path)
    second = start_script(_HOLD, path, "take", "alone")
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1)
    assert read_holder(path) == str(first.pid)
    first.send_signal(signal.SIGKILL)
    assert second.stdout is not None
    assert second.stdout.readline() == "held\n"
    assert read_holder(path) == str(second.pid)
    assert not is_free(path)


def test_a_lock_keeps_the_content_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    with hold_lock(tmp_path / "file"):
        assert not is_free(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "content"
    with pytest.raises(FileNotFoundError), hold_lock(tmp_path / "missing" / "file"):
        raise AssertionError("there is nothing to lock")


def test_who_waited_for_a_lock_whose_file_was_removed_locks_the_new_file(
    tmp_path: Path, run_scripts: Callable[..., list[str]]
) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    run_scripts(_COUNT + "        lock.unlink()\n", [(tmp_path / "lock", counter)] * 3)
    assert counter.read_text() == "300"


def test_one_module_locks_files() -> None:
    users = [
        path.name
        for package in ("registry", "components", "pipelines")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        and "fcntl" in (getattr(node, "module", None), *(alias.name for alias in node.names))
    ]
    assert users == ["file_locks.py"]
