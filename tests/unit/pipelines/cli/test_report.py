"""``lorry report``: of a run, of tasks, into files and onto the terminal."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lorry_components.steps.report.step import report_run
from lorry_components.steps.runtime.outcomes import RunRecord, run_step
from lorry_pipelines.cli import lorry
from lorry_registry.errors import NotFoundError, StoreError, TrainingError, UsageError
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

from fixtures.adapters import enroll, write_adapter

CHANGES = {
    "better": 3,
    "worse": 1,
    "rows": [{"texts": {"text": "hello"}, "truth": "4", "before": "3.9", "now": "1.2"}],
}


def register(
    registry: Registry, folder: Path, run: str, *, value: float, champion: int | None = None
) -> None:
    """Register an adapter as a run does, with the outcomes of its steps."""
    adapter = write_adapter(folder, seed=int(value * 100), value=value)
    event = enroll(
        registry,
        adapter,
        judged_champion=champion,
        reasons=("it is better",),
        details={"run": run},
        by="the pipeline",
    )
    comparison = {"version": champion, "adapter_id": adapter.adapter_id, "recorded": 0.8, "value": 0.8}
    details: dict[str, dict[str, Any]] = {
        "prepare_data": {"rows": {"train": int(value * 1000)}, "reason": "data changed", "source": "a.csv"},
        "finetune": {},
        "evaluate": {
            "champion": comparison | {"gain": 0.05, "confidence": 0.98, "examples": 371, "changes": CHANGES}
            if champion
            else None
        },
        "gate": {},
        "register": {"version": event.version, "promoted": True, "reasons": ["it is better"]},
    }
    for step, given in details.items():
        run_step(RunRecord(registry.store, run), "reviews", step, lambda given=given: given)
    report_run(RunRecord(registry.store, run), ["reviews"], registry.store)


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry with two versions of a task, and a run of a task that failed after them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORRY_HOME", str(tmp_path / "home"))
    registry = Registry(LocalStore(tmp_path / "home" / "store"), tmp_path / "cache")
    register(registry, tmp_path / "one", "run-1", value=0.80)
    register(registry, tmp_path / "two", "run-2", value=0.85, champion=1)

    def fail() -> Any:
        raise TrainingError("the loss became nan", where="films")

    record = RunRecord(registry.store, "run-3")
    run_step(record, "films", "prepare_data", dict)
    run_step(record, "films", "finetune", fail)
    report_run(record, ["films"], registry.store)
    return registry


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(lorry, ["report", *arguments])


def test_the_newest_version_beside_the_one_before(filled: Registry) -> None:
    result = invoke("reviews")
    assert result.exit_code == 0, result.output
    assert "## Newest version of reviews" in result.stdout
    for expected in (
        "Promoted: v2 in place of v1, +0.050 in pearson on the same 371 test rows, p = 0.020.",
        "800 → 850 train rows from a.csv",
        "v2 answers 3 test rows better than v1 and 1 worse",
        "right: `4`; v1: `3.9`; v2: `1.2`",
        "run run-2",
    ):
        assert expected in result.stdout


def test_the_last_run_is_that_whose_report_was_written_last(filled: Registry) -> None:
    result = invoke("--run", "last")
    assert "The task failed in finetune: films: the loss became nan" in result.stdout
    assert "reviews" not in result.stdout


def test_an_older_run_is_told_as_it_was_and_what_came_since(filled: Registry) -> None:
    result = invoke("--run", "run-1", "reviews")
    assert "Promoted: v1" in result.stdout
    assert "Since then v2 has become the champion." in result.stdout


def test_files_are_written_and_json_is_the_facts(filled: Registry, tmp_path: Path) -> None:
    result = invoke("--html", "out/report.html", "--markdown", "out/report.md")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / "out/report.html").read_text("utf-8").startswith("<!doctype html>")
    assert (tmp_path / "out/report.md").read_text("utf-8") == invoke("--markdown", "-").stdout
    facts = json.loads(invoke("--json").stdout)
    assert [task["task"] for task in facts["tasks"]] == ["reviews"]
    assert facts["tasks"][0]["gain"]["changes"] == CHANGES
    assert facts["tasks"][0]["data"]["rows_before"] == {"train": 800}


def test_a_version_whose_run_left_nothing_is_told_from_the_ledger(filled: Registry) -> None:
    filled.store.delete_all(list(filled.store.list_keys("runs")))
    result = invoke("reviews")
    assert result.exit_code == 0, result.output
    assert "pearson 0.850" in result.stdout
    assert "it is better" not in result.stderr
    assert invoke("--run", "last").exit_code == NotFoundError.exit_code


def test_outcomes_that_somebody_damaged_are_left_out(filled: Registry) -> None:
    wrong = {
        "champion": {"version": "x"},
        "picture": 7,
        "baselines": [3],
        "linear_probe": [],
        "value": "high",
    }
    run_step(RunRecord(filled.store, "run-2"), "reviews", "evaluate", lambda: wrong)
    result = invoke("reviews")
    assert result.exit_code == 0, result.output
    assert "pearson 0.850" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nothing"], NotFoundError.exit_code),
        (["--run", "run-9"], NotFoundError.exit_code),
        (["reviews", "--run", "run-3"], NotFoundError.exit_code),
        (["--run", "../../etc"], StoreError.exit_code),
        (["--json", "--html", "a.html"], UsageError.exit_code),
        (["--html", "one/manifest.json/report.html"], StoreError.exit_code),
    ],
)
def test_what_cannot_be_reported_is_said(filled: Registry, arguments: list[str], code: int) -> None:
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == "" or "--json" in arguments
