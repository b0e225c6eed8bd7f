"""What a run shows of its tasks while it goes on."""

import functools
import io
import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import TextColumn

from lorry_components.progress import ProgressFile
from lorry_components.steps.runtime.outcomes import STEPS, Outcome, RunRecord, Status
from lorry_components.steps.runtime.step_progress import StepProgress
from lorry_pipelines.local.display import (
    BarDisplay,
    LineDisplay,
    TaskState,
    Watcher,
    _Bars,
    read_progress_file,
    read_stored_progress,
)
from lorry_registry.errors import StoreError
from lorry_registry.stores import LocalStore, StoredDocument


class Shown:
    """What a display was given last, for each task."""

    def __init__(self) -> None:
        self.labels: dict[str, str] = {}
        self.details: dict[str, str] = {}

    def show(self, task: str, state: TaskState) -> None:
        self.labels[task] = state.label
        self.details[task] = state.detail


@pytest.fixture
def shown() -> Shown:
    return Shown()


@pytest.fixture
def watcher(store: LocalStore, tmp_path: Path, shown: Shown) -> Watcher:
    record = RunRecord(store, "run")
    read = functools.partial(read_progress_file, tmp_path / "progress")
    return Watcher(["films", "reviews"], record, read, shown)


def _finish(store: LocalStore, task: str, step: str, status: Status = "done", **details: Any) -> None:
    outcome = Outcome(
        task=task, step=step, status=status, started_at=datetime.now(UTC), seconds=1.0, details=details
    )
    RunRecord(store, "run").write(outcome)


def test_a_task_that_ended_is_not_looked_at_again(
    store: LocalStore, watcher: Watcher, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    _finish(store, "films", STEPS[0], "current")
    for step in STEPS:
        _finish(store, "reviews", step, promoted=True)
    watcher()
    assert shown.labels == {"films": "up to date", "reviews": "promoted"}
    reads: list[str] = []
    monkeypatch.setattr(LocalStore, "read", lambda _, key: reads.append(key))
    watcher()
    assert not reads


def test_a_store_that_is_away_ends_no_run(
    store: LocalStore, watcher: Watcher, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    _finish(store, "films", STEPS[0])

    def fail(_: LocalStore, key: str) -> StoredDocument:
        raise StoreError("it is away", where=key)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "read", fail)
        watcher()
    assert shown.labels == {}
    watcher()
    assert shown.labels == {"films": "preparing data", "reviews": "waiting"}


def test_a_training_that_goes_on_says_from_where_and_then_how_far_it_is(
    store: LocalStore, watcher: Watcher, shown: Shown, tmp_path: Path
) -> None:
    _finish(store, "films", STEPS[0])
    write = ProgressFile(tmp_path / "progress" / "films.json", "finetune")
    write(70, 147, "continuing from step 70 of 147")
    watcher()
    assert shown.labels["films"] == "fine-tuning, continuing from step 70 of 147"
    write(80, 147, "loss 0.231, 212 rows/s, 40 s left")
    watcher()
    assert shown.labels["films"] == "fine-tuning"
    assert shown.details["films"] == "step 80 of 147, loss 0.231, 212 rows/s, 40 s left"


def test_a_pod_is_followed_by_its_heartbeat(
    store: LocalStore, shown: Shown, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One in 10 s is written and read, and a line is logged each 30 s."""
    caplog.set_level(logging.INFO)
    record, now = RunRecord(store, "run"), [0.0]
    _finish(store, "films", STEPS[0])
    progress = StepProgress(record, "films", "finetune", clock=lambda: now[0])
    progress(0, 0)
    read = functools.partial(read_stored_progress, record)
    watcher = Watcher(["films"], record, read, shown, seconds=10.0)
    watcher()
    assert shown.labels == {"films": "fine-tuning"}
    assert shown.details == {"films": "for 0 s"}
    writes: list[str] = []
    overwrite = LocalStore.overwrite
    monkeypatch.setattr(
        LocalStore,
        "overwrite",
        lambda self, key, content: (writes.append(key), overwrite(self, key, content))[1],
    )
    for second in range(1, 62):
        now[0] = float(second)
        progress(second, 100, f"loss {1 / second:.3g}")
    assert len(writes) == 6
    lines = [entry.message for entry in caplog.records if entry.name.endswith("step_progress")]
    assert lines == ["films: finetune, 30 of 100, loss 0.0333", "films: finetune, 60 of 100, loss 0.0167"]
    reads: list[str] = []
    read_key = LocalStore.read
    monkeypatch.setattr(LocalStore, "read", lambda self, key: (reads.append(key), read_key(self, key))[1])
    watcher()
    assert not reads
    watcher(at_once=True)
    assert len(reads) == 2
    assert shown.details["films"].startswith("step 60 of 100, loss 0.0167, for ")


def test_a_store_that_takes_no_heartbeat_fails_no_step(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[str] = []

    def fail(_: LocalStore, key: str, content: bytes) -> None:
        attempts.append(key)
        raise StoreError("it is away", where=key)

    monkeypatch.setattr(LocalStore, "overwrite", fail)
    now = [0.0]
    progress = StepProgress(RunRecord(store, "run"), "films", "finetune", clock=lambda: now[0])
    for second in range(0, 100, 20):
        now[0] = float(second)
        progress(second, 100)
    assert len(attempts) == 1


def test_a_log_gets_a_line_for_each_change_and_each_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    display = LineDisplay(clock=lambda: now[0])
    for second in range(100):
        now[0] = float(second)
        label = "fine-tuning, continuing from step 7 of 99" if second < 5 else "fine-tuning"
        display.show("films", TaskState(0.5, label, f"step {second} of 99, loss 0.5, 9 s left"))
        display.show("reviews", TaskState(0.0, "waiting"))
    display.show("films", TaskState(1.0, "promoted", has_ended=True))
    assert capsys.readouterr().err.splitlines() == [
        "   0.0 s  films: fine-tuning, continuing from step 7 of 99",
        "   5.0 s  films: fine-tuning",
        "  35.0 s  films: fine-tuning, step 35 of 99, loss 0.5, 9 s left",
        "  65.0 s  films: fine-tuning, step 65 of 99, loss 0.5, 9 s left",
        "  95.0 s  films: fine-tuning, step 95 of 99, loss 0.5, 9 s left",
        "  99.0 s  films: promoted",
    ]


def test_fifty_tasks_fit_on_a_screen() -> None:
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    progress = _Bars(TextColumn("{task.description} {task.fields[label]}"), console=console)
    names = [f"task-{number}" for number in range(50)]
    display = BarDisplay(progress, names)
    for name in names[:3]:
        display.show(name, TaskState(0.4, "fine-tuning", "step 4 of 9, loss 0.5, 9 s left"))
    display.show(names[3], TaskState(1.0, "failed in finetune", has_ended=True))
    with console.capture() as capture:
        console.print(progress.get_renderable())
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capture.get())
    assert shown.split("\n")[:4] == [
        *(f"task-{number} fine-tuning, loss 0.5" for number in range(3)),
        "1 failed in finetune, 46 waiting",
    ]
