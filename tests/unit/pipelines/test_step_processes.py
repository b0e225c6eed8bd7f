"""Steps of a local run: their surroundings, their ends, and the order in which tasks go through them."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from lorry_components.watchdog import start_watched
from lorry_pipelines.local import step_processes
from lorry_pipelines.local.step_processes import EXIT_STOP, StepProcesses, open_context
from lorry_pipelines.local.step_runner import StepsRun, enter, run_tasks

_NAMES = ("films", "books", "food")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux")

_TORCH = (
    "import sys; assert 'torch' in sys.modules; import torch; torch.ones(300, 300) @ torch.ones(300, 300)"
)


def do(body: str) -> Callable[[], None]:
    """Return a step that does nothing but run a few lines."""
    return functools.partial(exec, body, {})


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENBLAS_NUM_THREADS", "1")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield open_context()


@pytest.fixture
def processes(context: Any, tmp_path: Path) -> StepProcesses:
    return StepProcesses(context, tmp_path / "pipeline.log", {"LORRY_PROGRESS": "/of/this/run"})


def read_log(processes: StepProcesses) -> str:
    return processes.log.read_text("utf-8")


def test_a_step_has_its_environment_its_output_and_no_input(processes: StepProcesses) -> None:
    body = "import os, sys; print(os.environ['LORRY_PROGRESS'], sys.stdin.read() == '', flush=True)"
    assert processes.run(("a", do(f"{body}; os.system('echo from a child')"))) == EXIT_STOP
    assert read_log(processes) == "/of/this/run True\nfrom a child\n"


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('no more')", 1, "no more"),
        ("raise ValueError('this is wrong')", 1, "ValueError: this is wrong"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("from threading import Timer; Timer(0.3, print, ['late']).start()", EXIT_STOP, "late"),
    ],
)
def test_a_step_ends_as_any_process(
    processes: StepProcesses, capfd: pytest.CaptureFixture[str], body: str, code: int, said: str
) -> None:
    assert processes.run(("films: gate", do(body))) == code
    assert said in read_log(processes)
    told = capfd.readouterr().out
    assert told == ("" if code == EXIT_STOP else f"films: gate ended with exit code {code}\n")


def test_a_step_that_proceeds_ends_with_zero(processes: StepProcesses) -> None:
    assert processes.run(("a", functools.partial(str, "proceed"))) == 0
    assert processes.run(("a", functools.partial(str, "stop"))) == EXIT_STOP


def test_nothing_of_one_step_reaches_another(processes: StepProcesses) -> None:
    draw = "import json, numpy, random; json.mark = 1; print('drew', random.random(), numpy.random.random())"
    for _ in range(2):
        processes.run(("a", do(draw)))
    assert len(set(read_log(processes).splitlines())) == 2
    assert processes.run(("a", do("import json; assert not hasattr(json, 'mark')"))) == EXIT_STOP


def test_libraries_are_there_and_no_thread_that_a_copy_would_lack(processes: StepProcesses) -> None:
    body = (
        "import os, pathlib; folder = pathlib.Path('/proc', str(os.getppid()), 'task');"
        " print(*(path.read_text().strip() for path in folder.glob('*/comm')))"
    )
    assert processes.run(("a", do(f"{_TORCH}; {body}"))) == EXIT_STOP
    # A thread of pyarrow's memory allocator makes itself ready for a fork.
    assert {*read_log(processes).split()} - {"jemalloc_bg_thd"} == {"python"}


def test_steps_run_side_by_side(processes: StepProcesses, tmp_path: Path) -> None:
    # Each waits for the other one's file: one after the other they would fail.
    bodies = [
        f"{_TORCH}; import time, pathlib; pathlib.Path({str(tmp_path / mine)!r}).touch();"
        f" [time.sleep(0.05) for _ in range(600) if not pathlib.Path({str(tmp_path / other)!r}).exists()];"
        f" assert pathlib.Path({str(tmp_path / other)!r}).exists()"
        for mine, other in (("a", "b"), ("b", "a"))
    ]
    processes.run_chains((iter([("step", do(body))]) for body in bodies), 2)
    assert read_log(processes) == ""


def test_exit_codes_of_many_are_told_apart(
    processes: StepProcesses, capfd: pytest.CaptureFixture[str]
) -> None:
    chains = [
        iter(
            [
                (f"{number}", functools.partial(str, "proceed")),
                (f"{number}", do(f"import sys; sys.exit({10 + number})")),
            ]
        )
        for number in range(12)
    ]
    processes.run_chains(chains, 4)
    lines = [f"{number} ended with exit code {10 + number}" for number in range(12)]
    assert sorted(capfd.readouterr().out.splitlines()) == sorted(lines)


def test_no_process_is_copied_beside_an_accelerator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = tmp_path / "nvidiactl"
    device.touch()
    monkeypatch.setattr(step_processes, "_ACCELERATORS", (str(device),))
    monkeypatch.setattr(forkserver, "ensure_running", lambda: pytest.fail("it was started"))
    context = open_context()
    assert context.get_start_method() == "spawn"
    processes = StepProcesses(context, tmp_path / "pipeline.log", {})
    assert processes.run(("a", functools.partial(str, "proceed"))) == 0


class Recorded:
    """Processes that start nothing: some steps of some tasks end with other codes than 0."""

    def __init__(self, codes: Mapping[str, int]) -> None:
        self._codes = codes
        self.calls: dict[str, dict[str, Any]] = {}

    def run_chains(self, chains: Any, at_a_time: int) -> None:
        assert at_a_time == 2
        for chain in chains:
            for step in chain:
                if self.run(step) != 0:
                    break

    def run(self, step: tuple[str, Any]) -> int:
        name, call = step
        self.calls[name] = {**call.keywords}
        assert (call.func, name.split(": ")[-1]) == (enter, call.args[0])
        return self._codes.get(name, 0)


def test_a_task_goes_through_its_steps_until_one_stops_it(tmp_path: Path) -> None:
    tasks = tuple(json.dumps({"name": name}) for name in _NAMES)
    run = StepsRun(
        tasks=tasks,
        run="run-1",
        store="s3://store",
        tracking_uri="",
        checkpoints="/checkpoints",
        force=True,
        root=tmp_path,
        log=tmp_path / "log",
    )
    recorded = Recorded({"books: prepare_data": EXIT_STOP, "food: finetune": -signal.SIGKILL})
    run_tasks(run, recorded)  # type: ignore[arg-type]
    steps = {
        name: [call.split(": ")[1] for call in recorded.calls if call.startswith(name)] for name in _NAMES
    }
    assert steps == {
        "films": ["prepare_data", "finetune", "evaluate", "gate", "register"],
        "books": ["prepare_data"],
        "food": ["prepare_data", "finetune"],
    }
    assert list(recorded.calls)[-1] == "report"
    assert recorded.calls["report"]["tasks"] == tasks
    trained, judged = recorded.calls["films: finetune"], recorded.calls["films: evaluate"]
    assert (trained["force"], trained["checkpoints"], trained["run"]) == (True, "/checkpoints", "run-1")
    assert judged["data"] == recorded.calls["films: prepare_data"]["data"] == str(tmp_path / "films" / "data")
    assert judged["candidate"] == trained["candidate"]


def is_alive(process: int) -> bool:
    """Return whether a process runs; one whose new parent does not ask for its end stays listed."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def list_group(leader: int) -> list[int]:
    """Return the processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(path.name)) == leader:
                found.append(int(path.name))
        except ProcessLookupError:
            continue
    return [process for process in found if is_alive(process)]


@pytest.mark.parametrize("tells", [False, True])
def test_all_processes_end_when_the_command_is_gone(tmp_path: Path, tells: bool) -> None:
    command = [sys.executable, "-P", "-m", "lorry_pipelines.local.step_runner"]
    with (tmp_path / "log").open("wb") as log:
        process: subprocess.Popen[bytes] = start_watched(command, log=log, environment=os.environ)
    wait_until(lambda: len(list_group(process.pid)) >= 3)
    assert process.stdin is not None
    if tells:
        run = StepsRun(
            tasks=(),
            run="run-1",
            store=str(tmp_path),
            tracking_uri="",
            checkpoints="",
            force=False,
            root=tmp_path,
            log=tmp_path / "log",
        )
        process.stdin.write(run.model_dump_json().encode() + b"\n")
    process.stdin.close()
    process.wait(60)
    wait_until(lambda: not list_group(process.pid))


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
