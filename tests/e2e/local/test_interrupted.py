"""Ctrl-C in each step, and a kill: nothing is left over, and the same command goes on.

Two tasks are run side by side again and again in one LORRY_HOME, and each time stopped further on.
"""

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

# Loaded by every Python of a run: lets a step stand still where a test wants to interrupt it. That is after
# its work and before anybody knows of it, which is the worst moment; or at a share of its own progress.
PAUSE = """
import importlib.machinery, json, os, sys, time
from pathlib import Path

PAUSES, MARKS = json.loads(os.environ["PAUSES"]), Path(os.environ["PAUSE_MARKS"])

def pause(task):
    (MARKS / task).touch()
    time.sleep(600)

def pause_after_work(outcomes):
    stock = outcomes.run_step
    def run_step(record, task, step, body):
        def work():
            details = body()
            if PAUSES.get(task) == [step, 1.0]:
                pause(task)
            return details
        return stock(record, task, step, work)
    outcomes.run_step = run_step

def pause_within_work(progress):
    stock = progress.ProgressFile.__call__
    def tell(self, done, total, note=""):
        stock(self, done, total, note)
        step, share = PAUSES.get(self._path.stem, ("", 1.0))
        if step == self._step and share < 1.0 and total and done >= share * total:
            pause(self._path.stem)
    progress.ProgressFile.__call__ = tell

PATCHES = {
    "lorry_components.steps.runtime.outcomes": pause_after_work,
    "lorry_components.progress": pause_within_work,
}

class Patcher:
    @staticmethod
    def find_spec(name, path, target=None):
        patch = PATCHES.pop(name, None)
        if patch is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def execute_and_patch(module):
            execute(module)
            patch(module)
        spec.loader.exec_module = execute_and_patch
        return spec

sys.meta_path.insert(0, Patcher)
"""
COMMAND = ("run", "films.yaml", "books.yaml")
Pauses = dict[str, tuple[str, float]]


@pytest.fixture(scope="module")
def shelf(make_workspace: Callable[[str], Any]) -> Any:
    workspace = make_workspace("interrupted")
    for name in ("films", "books"):
        workspace.write_task(name, train={"epochs": 4, "batch_size": 16, "learning_rate": 0.01})
    (workspace.folder / "pause").mkdir()
    (workspace.folder / "pause" / "sitecustomize.py").write_text(PAUSE)
    return workspace


def run_until(workspace: Any, pauses: Pauses) -> "subprocess.Popen[str]":
    """Start the run, and wait until each of these tasks stands still in its step."""
    marks = workspace.folder / f"marks{len(workspace.list_runs())}"
    marks.mkdir()
    process: subprocess.Popen[str] = workspace.start(
        *COMMAND,
        PYTHONPATH=os.pathsep.join([str(workspace.folder / "pause"), os.environ.get("PYTHONPATH", "")]),
        PAUSES=json.dumps(pauses),
        PAUSE_MARKS=str(marks),
    )
    workspace.wait_until(
        lambda: len(list(marks.iterdir())) == len(pauses) or process.poll() is not None, str(pauses)
    )
    assert process.poll() is None, process.communicate()
    return process


def interrupt(workspace: Any, pauses: Pauses, *, done: tuple[str, ...] = ()) -> str:
    """Press Ctrl-C while tasks are in these steps, look at what is left, and return what was told.

    Tasks in ``done`` have ended by then.
    """
    process = run_until(workspace, pauses)
    for task in done:
        workspace.wait_until(partial(workspace.read_outcome, task, "register"), f"{task} is registered")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command continues from there\n" in err
    assert err.endswith("\ninterrupted\n")
    assert "Traceback" not in err
    for task, (step, _) in pauses.items():
        assert f"{task}: interrupted in {step}\n" in err
        assert workspace.read_outcome(task, step) is None
    workspace.check_sound()
    return err


@pytest.fixture(scope="module")
def interrupted(shelf: Any) -> Any:
    interrupt(shelf, {"films": ("prepare_data", 1.0), "books": ("finetune", 0.5)})
    return shelf


def test_interrupted(interrupted: Any) -> None:
    assert interrupted.list_adapters() == []


@pytest.mark.exhaustive
def test_interrupted_again_and_again(interrupted: Any) -> None:
    shelf = interrupted
    # A kill of the command alone. Meanwhile a second run is refused; it starts nothing.
    process = run_until(shelf, {"films": ("finetune", 0.5), "books": ("finetune", 0.75)})
    refused = shelf.run(*COMMAND, code=8).err
    assert f"another run of it is going on (process {process.pid})\n  -> wait for it to end" in refused
    assert len(shelf.list_runs()) == 2
    assert len(shelf.list_processes()) >= 4
    process.kill()
    process.communicate(timeout=60)
    # Its steps end with it, and no lock is left: the next run begins.
    shelf.check_sound()

    interrupt(shelf, {"films": ("evaluate", 1.0), "books": ("gate", 1.0)})
    for task, least in (("films", 9), ("books", 15)):
        trained = shelf.read_outcome(task, "finetune")["details"]
        assert trained["steps"] == 24
        assert least <= trained["resumed_from"] < 24
    assert shelf.list_adapters() == []

    # Ctrl-C comes when one task is registered and nobody knows, and the other one is done.
    told = interrupt(shelf, {"films": ("register", 1.0)}, done=("books",))
    assert "books: interrupted" not in told
    assert "lorry reconcile films" in told
    assert len(shelf.list_adapters()) == 2
    for task in shelf.run_json(*COMMAND):
        assert (task["outcome"], task["version"]) == ("current", 1)
    # One run each in MLflow, for it went on with the training; and both are over.
    with sqlite3.connect(shelf.home / "mlflow.db") as database:
        shown = database.execute(
            "select experiments.name, status from experiments join runs using (experiment_id)"
        )
        assert sorted(shown) == [("books", "FINISHED"), ("films", "FINISHED")]
