"""Runs the trials of a study as processes, several at a time, and reports the outcome of each."""

import json
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorry_components.processors import limit_threads
from lorry_components.studies.study_summary import TrialOutcome
from lorry_components.studies.trial_process import PROGRESS_NAME
from lorry_components.studies.trials import Trial, TrialFolder
from lorry_components.watchdog import end_group, start_watched
from lorry_pipelines.local.display import TaskProgress, TaskState

_POLL_SECONDS = 0.2
# More at a time compete for memory bandwidth more than they gain.
_MOST_AT_A_TIME = 4
TRIAL_COMMAND = (sys.executable, "-P", "-m", "lorry_components.studies.trial_process")
_DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Places:
    """Where trials run: each place holds one at a time.

    Attributes:
        environments: The environment of the process in each place.
    """

    environments: tuple[Mapping[str, str], ...]

    @classmethod
    def choose(
        cls,
        trials: int,
        *,
        jobs: int | None,
        processors: int,
        devices: Sequence[str],
        inherited: Mapping[str, str],
    ) -> "Places":
        """Divide processors and GPUs among trials.

        Args:
            trials: How many trials there are.
            jobs: How many may run at a time; None: one per GPU, or else one per processor, at most 4.
            processors: How many this process may use.
            devices: Its GPUs, as ``CUDA_VISIBLE_DEVICES`` names them.
            inherited: The environment of this process; its number of threads takes precedence.
        """
        count = max(1, min(trials, jobs or (len(devices) or min(processors, _MOST_AT_A_TIME))))
        shared = {"PYTHONUNBUFFERED": "1", **inherited}
        limit_threads(shared, processors, processes=count)
        if not devices:
            return cls((shared,) * count)
        return cls(tuple(shared | {_DEVICES: devices[place % len(devices)]} for place in range(count)))


def list_devices(environment: Mapping[str, str]) -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in environment.get(_DEVICES, "").split(",") if name]
    return named[:count] if named else [str(number) for number in range(count)]


def run_trials(
    trials: Sequence[Trial],
    root: Path,
    *,
    places: Places,
    shown: TaskProgress,
    finished: Callable[[TrialOutcome], None],
    command: Sequence[str] = TRIAL_COMMAND,
) -> None:
    """Run trials to their end, started in their order, and report the outcome of each.

    A trial that fails does not stop the others.

    Args:
        trials: The trials to run.
        root: The folder of all trials.
        places: Where they run.
        shown: Shows the progress of each.
        finished: Called with the outcome of each trial that ended.
        command: The command that runs a trial; the trial's folder is added to it.

    Raises:
        KeyboardInterrupt: The study was interrupted; its processes are ended first.
    """
    waiting = deque(trials)
    running: dict[int, _RunningTrial] = {}
    try:
        while waiting or running:
            for place, environment in enumerate(places.environments):
                if waiting and place not in running:
                    running[place] = _start(waiting.popleft(), root, environment, command)
            time.sleep(_POLL_SECONDS)
            for place, present in list(running.items()):
                if present.process.poll() is None:
                    _show(present, shown)
                    continue
                del running[place]
                end_group(present.process)
                outcome = _conclude(present)
                ended = TaskState(1.0, "failed" if outcome.error else "done", has_ended=True)
                shown.show(present.trial.name, ended)
                finished(outcome)
    finally:
        for present in running.values():
            end_group(present.process)


@dataclass(frozen=True, slots=True)
class _RunningTrial:
    trial: Trial
    folder: TrialFolder
    process: "subprocess.Popen[bytes]"


def _start(trial: Trial, root: Path, environment: Mapping[str, str], command: Sequence[str]) -> _RunningTrial:
    folder = trial.open(root)
    folder.write_job(trial.job)
    (folder.path / PROGRESS_NAME).unlink(missing_ok=True)
    with folder.log.open("ab") as log:
        process = start_watched([*command, str(folder.path)], log=log, environment=environment)
    return _RunningTrial(trial, folder, process)


def _show(present: _RunningTrial, shown: TaskProgress) -> None:
    try:
        document = json.loads((present.folder.path / PROGRESS_NAME).read_text("utf-8"))
    except FileNotFoundError:
        return
    total = document["total"]
    share = document["done"] / total if total else 0.0
    shown.show(present.trial.name, TaskState(share, "running"))


def _conclude(present: _RunningTrial) -> TrialOutcome:
    trial, folder = present.trial, present.folder
    result = folder.read_result()
    if result is not None:
        return TrialOutcome(trial, folder, result)
    failure = folder.read_failure()
    reason = failure.message if failure is not None else _explain_end(present.process.returncode)
    return TrialOutcome(trial, folder, None, error=reason)


def _explain_end(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code} and no result"
    name = signal.Signals(-code).name
    perhaps = ": this machine may lack the memory" if -code == signal.SIGKILL else ""
    return f"its process was ended by {name}{perhaps}"
