"""What a run shows of its tasks while it goes on."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lorry_components.steps.runtime.outcomes import STEPS, Outcome, RunRecord, Status
from lorry_pipelines.local.display import Watcher
from lorry_registry.errors import StoreError
from lorry_registry.stores import LocalStore, StoredDocument


class Shown:
    """What a display was given last, for each task."""

    def __init__(self) -> None:
        self.labels: dict[str, str] = {}

    def show(self, task: str, *, share: float, label: str) -> None:
        self.labels[task] = label


@pytest.fixture
def shown() -> Shown:
    return Shown()


@pytest.fixture
def watcher(store: LocalStore, tmp_path: Path, shown: Shown) -> Watcher:
    return Watcher(["films", "reviews"], store, "run", tmp_path / "progress", shown)


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
