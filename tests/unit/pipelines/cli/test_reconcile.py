"""``lorry reconcile``: a task that fails is told, and stops no other."""

import json
import shutil
from pathlib import Path

import click.testing
import pytest

from lorry_pipelines.cli import lorry
from lorry_registry.errors import LorryError, StoreError, TrackingError
from lorry_registry.mlflow.index import MlflowIndex


class Index:
    """Stands in for MLflow."""

    def __init__(self, error: LorryError | None = None) -> None:
        self.error = error

    def check_reachable(self) -> None:
        if self.error:
            raise self.error


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Return the tasks that were reconciled; of them the second cannot be."""
    seen: list[str] = []

    def reconcile(_index: Index, _registry: object, task: str, *, adopt_alias: bool) -> list[str]:
        seen.append(f"{task} adopted" if adopt_alias else task)
        if task == "films":
            raise StoreError("its history was changed", where=task)
        return ["v1 was missing"] if task == "books" else []

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORRY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("lorry_components.steps.register.mlflow_publication.reconcile_task", reconcile)
    monkeypatch.setattr("lorry_pipelines.cli.reconcile.open_index", lambda _settings: Index())
    monkeypatch.setattr(
        "lorry_registry.ledger.ledger.Ledger.list_tasks", lambda _ledger: ["books", "films", "reviews"]
    )
    return seen


def test_a_task_that_fails_stops_no_other(tasks: list[str]) -> None:
    result = click.testing.CliRunner().invoke(lorry, ["reconcile"])
    assert result.exit_code == StoreError.exit_code
    assert tasks == ["books", "films", "reviews"]
    assert result.stdout == "books: v1 was missing\nreviews: nothing to do\n"
    assert "error: films: films: its history was changed" in result.stderr
    result = click.testing.CliRunner().invoke(lorry, ["reconcile", "--json"])
    assert result.exit_code == StoreError.exit_code
    assert json.loads(result.stdout) == {"books": ["v1 was missing"], "reviews": []}


def test_a_champion_of_mlflows_is_adopted_only_on_request(tasks: list[str]) -> None:
    result = click.testing.CliRunner().invoke(lorry, ["reconcile", "books", "--adopt"])
    assert result.exit_code == 0
    assert tasks == ["books adopted"]


def test_an_mlflow_that_is_gone_is_told_once(tasks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(TrackingError("cannot reach it", where="there"))
    monkeypatch.setattr("lorry_pipelines.cli.reconcile.open_index", lambda _settings: index)
    result = click.testing.CliRunner().invoke(lorry, ["reconcile"])
    assert result.exit_code == TrackingError.exit_code
    assert result.stderr.count("cannot reach it") == 1
    assert tasks == []


def test_an_mlflow_that_was_moved_is_repaired_although_no_task_has_a_version(
    monkeypatch: pytest.MonkeyPatch, empty_mlflow: Path, tmp_path: Path
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    shutil.copyfile(empty_mlflow, before / "mlflow.db")
    MlflowIndex(f"sqlite:///{before / 'mlflow.db'}").open_run("films", name="a run that failed", tags={})
    before.rename(after)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORRY_HOME", str(after))
    result = click.testing.CliRunner().invoke(lorry, ["reconcile"])
    assert result.exit_code == 0
    assert f"moved from {before}/mlflow-artifacts to {after}/mlflow-artifacts" in result.stdout
    result = click.testing.CliRunner().invoke(lorry, ["reconcile", "--json"])
    assert (json.loads(result.stdout), result.stderr) == ({}, "")
    MlflowIndex(f"sqlite:///{after / 'mlflow.db'}").check_place()
