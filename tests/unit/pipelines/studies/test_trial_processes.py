"""Trials as processes: some at a time, none takes another down, none is left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.studies.study_summary import TrialOutcome
from lorry_components.studies.trials import Trial
from lorry_components.studies.variants import Variant
from lorry_pipelines.local.display import TaskState
from lorry_pipelines.studies.trial_processes import Places, run_trials

# What stands in for a training: it does what the seed in its job says.
CELL = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
(folder / "pid").write_text(str(os.getpid()))
(folder / "threads").write_text(os.environ["OMP_NUM_THREADS"])
seed = json.loads((folder / "job.json").read_text())["spec"]["train"]["seed"]
failure = {"error": "TrainingError", "message": "the loss became nan", "exit_code": 10}
if seed == 1:
    (folder / "failure.json").write_text(json.dumps(failure))
    sys.exit(10)
if seed == 2:
    os.kill(os.getpid(), signal.SIGKILL)
if seed == 3:
    sys.exit(4)
if seed == 4:
    time.sleep(600)
metrics = {"a": {"value": 1, "low": 1, "high": 1}}
evaluation = {"split": "test", "examples": 1, "primary": "a", "metrics": metrics}
result = {"seed": seed, "training": None, "evaluation": evaluation, "evaluation_seconds": 1}
(folder / "evaluation").mkdir()
(folder / "evaluation" / "predictions.jsonl").touch()
(folder / "result.json").write_text(json.dumps(result))
"""


class Shown:
    """Takes note of what is shown."""

    def __init__(self) -> None:
        self.labels: dict[str, str] = {}

    def show(self, task: str, state: TaskState) -> None:
        self.labels[task] = state.label


@pytest.fixture
def run(compare: Callable[..., list[Variant]], lay_out: Callable[..., list[Trial]], tmp_path: Path) -> Any:
    """Return a function that runs a stand-in trial for each seed and returns the outcomes by seed."""

    def start(
        seeds: tuple[int, ...], *, jobs: int = 2, shown: Shown | None = None
    ) -> dict[int, TrialOutcome]:
        outcomes: dict[int, TrialOutcome] = {}
        places = Places.choose(
            len(seeds), jobs=jobs, processors=4, devices=(), inherited={"PATH": os.environ["PATH"]}
        )
        run_trials(
            lay_out(compare("lora"), seeds),
            tmp_path / "cells",
            places=places,
            shown=shown or Shown(),
            finished=lambda outcome: outcomes.update({outcome.trial.seed: outcome}),
            command=(sys.executable, "-c", CELL),
        )
        return outcomes

    return start


def test_one_that_fails_takes_no_other_down(run: Any) -> None:
    shown = Shown()
    outcomes = run((0, 1, 2, 3, 5), shown=shown)
    assert [seed for seed in sorted(outcomes) if outcomes[seed].result] == [0, 5]
    assert outcomes[1].error == "the loss became nan"
    assert outcomes[2].error == "its process was ended by SIGKILL: this machine may lack the memory"
    assert outcomes[3].error == "its process ended with exit code 4 and no result"
    assert shown.labels["lora, seed 0"] == "done"
    assert shown.labels["lora, seed 2"] == "failed"
    # Two at a time on four processors.
    assert (outcomes[0].folder.path / "threads").read_text() == "2"


def test_an_interruption_ends_what_is_running(run: Any, tmp_path: Path) -> None:
    def interrupt() -> None:
        while not list((tmp_path / "cells").glob("*/pid")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run((4,))
    (path,) = (tmp_path / "cells").glob("*/pid")
    with pytest.raises(ProcessLookupError):
        os.kill(int(path.read_text()), 0)


def test_a_cell_ends_with_whoever_started_it() -> None:
    code = (
        "from lorry_components.studies import trial_process as trial; trial.follow_starter(); print('here'); "
    )
    process = subprocess.Popen(
        [sys.executable, "-uc", f"{code}import time; time.sleep(600)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    process.stdin.close()
    assert process.wait(60) == -signal.SIGKILL
    process.stdout.close()


@pytest.mark.parametrize(
    ("trials", "jobs", "processors", "devices", "count", "threads"),
    [
        (6, None, 2, (), 2, "1"),
        (6, None, 64, (), 4, "16"),
        (1, None, 8, (), 1, "8"),
        (6, 3, 2, (), 3, "1"),
        (2, 5, 8, (), 2, "4"),
        (6, None, 16, ("0", "1"), 2, "8"),
        (6, 3, 16, ("0", "1"), 3, "5"),
    ],
)
def test_processors_and_gpus_are_divided(
    trials: int, jobs: int | None, processors: int, devices: tuple[str, ...], count: int, threads: str
) -> None:
    places = Places.choose(trials, jobs=jobs, processors=processors, devices=devices, inherited={})
    assert len(places.environments) == count
    assert {place["OMP_NUM_THREADS"] for place in places.environments} == {threads}
    named = [place.get("CUDA_VISIBLE_DEVICES") for place in places.environments]
    assert named == [devices[place % len(devices)] if devices else None for place in range(count)]


def test_what_the_environment_says_of_threads_counts() -> None:
    places = Places.choose(2, jobs=2, processors=8, devices=(), inherited={"OMP_NUM_THREADS": "1"})
    assert {place["OMP_NUM_THREADS"] for place in places.environments} == {"1"}
