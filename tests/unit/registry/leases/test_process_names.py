"""Names of processes that are distinguished from those with the same number."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.leases import process_names
from lorry_registry.leases.process_names import ProcessName

_NAME = """
import sys
from lorry_registry.leases.process_names import ProcessName
print(ProcessName.of_this_process().model_dump_json(), flush=True)
sys.stdin.read() if sys.argv[1] == "wait" else None
import time
time.sleep(600 if sys.argv[1] == "wait" else 0)
"""


def _start(start_script: Callable[..., Any]) -> tuple[Any, ProcessName]:
    process = start_script(_NAME, "wait")
    return process, ProcessName.model_validate_json(process.stdout.readline())


def test_a_process_has_ended_when_it_has(start_script: Callable[..., Any]) -> None:
    process, name = _start(start_script)
    assert name.number == process.pid
    assert not name.has_ended()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert name.has_ended()


def test_another_process_of_the_same_number_is_not_the_one_that_is_named() -> None:
    mine = ProcessName.of_this_process()
    assert not mine.has_ended()
    assert mine.model_copy(update={"started": "1"}).has_ended()


@pytest.mark.parametrize("changes", [{"space": "another boot"}, {"space": ""}, {"started": ""}])
def test_nothing_is_known_of_a_process_elsewhere(changes: dict[str, str]) -> None:
    elsewhere = ProcessName.of_this_process().model_copy(update={"number": 2**22 - 3, **changes})
    assert not elsewhere.has_ended()


def test_nothing_is_known_where_proc_has_the_numbers_of_another_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = ProcessName.of_this_process()
    ended = mine.model_copy(update={"number": 2**22 - 3})
    assert ended.has_ended()
    for name in ("sys", "1"):
        (tmp_path / name).symlink_to(Path("/proc") / name)
    # As a process sees it whose own number is another one: unshare --pid --fork, without --mount-proc.
    (tmp_path / str(os.getpid())).symlink_to(Path("/proc/1"))
    (tmp_path / "self").symlink_to("4194300")
    (tmp_path / "4194300").symlink_to(f"/proc/{os.getpid()}")
    monkeypatch.setattr(process_names, "_PROC", tmp_path)
    assert not ended.has_ended()
    named = ProcessName.of_this_process()
    assert (named.space, named.started) == ("", "")


def test_a_process_that_proc_hides_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ProcessName.of_this_process()
    hidden = mine.model_copy(update={"number": 2**22 - 3})
    assert hidden.has_ended()

    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not hidden.has_ended()
