"""Processes that end with whoever started them, and the end of whole groups."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorry_components import watchdog
from lorry_components.watchdog import end_group, start_watched

# Follows its starter, has a child in its group, and says when both are there. What its first argument names
# happens before it is ended.
_FOLLOW = """
import subprocess, sys, time
from pathlib import Path
from lorry_components.watchdog import follow_starter

folder, way = Path(sys.argv[1]), sys.argv[2]

def clean_up():
    (folder / "cleaned").touch()
    if way == "fail":
        raise RuntimeError("the engine is gone")

follow_starter(None if way == "plainly" else clean_up)
# It has an empty input of its own.
assert sys.stdin.read() == ""
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
(folder / "child.tmp").write_text(str(child.pid))
(folder / "child.tmp").rename(folder / "child")
time.sleep(600)
"""

# Starts the above and waits until it is killed.
_START = """
import os, sys, time
from pathlib import Path
from lorry_components.watchdog import start_watched

folder = Path(sys.argv[1])
with (folder / "log").open("wb") as log:
    process = start_watched([sys.executable, "-c", *sys.argv[2:]], log=log, environment=os.environ)
(folder / "process").write_text(str(process.pid))
print("started", flush=True)
time.sleep(600)
"""


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} does not come: {list(path.parent.iterdir())}"
        time.sleep(0.02)
    return path.read_text()


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        # Nobody may be left to take note of its end.
        if state == "Z":
            return
        assert time.monotonic() < deadline, f"process {pid} goes on"
        time.sleep(0.02)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[int]]:
    """Kill at the end what a failed test leaves."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("way", ["plainly", "clean", "fail"])
def test_all_end_with_a_starter_that_is_killed(tmp_path: Path, started: list[int], way: str) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", _START, str(tmp_path), _FOLLOW, str(tmp_path), way], stdout=subprocess.PIPE
    )
    assert starter.stdout is not None
    with starter.stdout as output:
        assert output.readline() == b"started\n"
    child, process = int(wait_for(tmp_path / "child")), int(wait_for(tmp_path / "process"))
    started += [starter.pid, child, process]
    starter.kill()
    starter.wait()
    for pid in (process, child):
        wait_until_gone(pid)
    assert (tmp_path / "cleaned").exists() == (way != "plainly")


def test_without_a_pipe_nobody_is_followed() -> None:
    code = "from lorry_components.watchdog import follow_starter; follow_starter(); print(input())"
    with Path(__file__).open("rb") as text:
        result = subprocess.run([sys.executable, "-c", code], stdin=text, capture_output=True, check=True)
    assert result.stdout.decode().strip() == Path(__file__).read_text("utf-8").splitlines()[0]


def test_a_group_is_ended(tmp_path: Path, started: list[int]) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = start_watched(
            [sys.executable, "-c", _FOLLOW, str(tmp_path), "clean"], log=log, environment=os.environ
        )
    child = int(wait_for(tmp_path / "child"))
    started += [child, process.pid]
    end_group(process)
    assert process.returncode == -signal.SIGTERM
    wait_until_gone(child)
    assert not (tmp_path / "cleaned").exists()


def test_a_process_that_does_not_listen_is_ended(
    tmp_path: Path, started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_PATIENCE_SECONDS", 0.2)
    code = (
        "import signal, sys, time; from pathlib import Path; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "Path(sys.argv[1]).touch(); time.sleep(600)"
    )
    with (tmp_path / "log").open("wb") as log:
        process = start_watched(
            [sys.executable, "-c", code, str(tmp_path / "deaf")], log=log, environment=os.environ
        )
    started.append(process.pid)
    wait_for(tmp_path / "deaf")
    end_group(process)
    assert process.returncode == -signal.SIGKILL


def test_a_group_that_has_ended_is_left_alone(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = start_watched([sys.executable, "-c", "print(7)"], log=log, environment={})
    process.wait()
    end_group(process)
    assert process.returncode == 0
    assert (tmp_path / "log").read_bytes() == b"7\n"
