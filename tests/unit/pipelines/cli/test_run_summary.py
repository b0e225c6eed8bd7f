"""The end of a run, as it is printed."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from lorry_components.data.examples import Example
from lorry_components.steps.evaluate.entry import find_example
from lorry_components.steps.report.report_reading import read_task
from lorry_components.steps.report.step import TaskReport
from lorry_components.tasks.resolution import resolve_task
from lorry_components.tasks.staleness import Staleness
from lorry_pipelines.cli.run import tell_start
from lorry_pipelines.cli.run_summary import describe_tasks, print_summary
from lorry_pipelines.scheduling import PlannedTask
from lorry_registry.mlflow.page_addresses import TrainingsPage
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import TaskSpec

from fixtures.adapters import enroll, write_adapter
from fixtures.terminals import check_lines, open_terminal

SPEC = TaskSpec.model_validate(
    {
        "name": "reviews",
        "kind": "text-classification",
        "base": {"model": "./base"},
        "data": {"source": "rows.jsonl"},
        "method": {"name": "lora"},
    }
)


def report(trained: dict[str, Any] | None = None, **evaluated: Any) -> TaskReport:
    return TaskReport(
        task="reviews",
        status="challenger",
        step="register",
        reason="too weak",
        failure=None,
        details={"evaluate": evaluated, "finetune": {"train_seconds": 12.0, **(trained or {})}},
        seconds={"finetune": 14.0, "evaluate": 2.5},
    )


@pytest.mark.parametrize("answer", ["good", None])
def test_one_answer_for_all_rows_is_told_below_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: str | None
) -> None:
    registry = Registry(LocalStore(tmp_path / "store"), tmp_path / "cache")
    planned = [PlannedTask(resolve_task(SPEC), Staleness(is_stale=True, reason="it has no adapter yet"))]
    (row,) = describe_tasks(planned, {"reviews": report(single_answer=answer)}, registry)
    assert row["single_answer"] == answer
    assert (row["seconds"], row["train_seconds"]) == (16.5, 12.0)
    print_summary([row], seconds=20.0, tracking_uri="sqlite:///mlflow.db")
    shown = capsys.readouterr().out
    told = "answers every test row with 'good'; on small data too few optimiser steps are the usual reason"
    assert (told in shown) == bool(answer)
    assert "learning_rate" not in shown
    assert "1 task in 20 s" in shown


def test_what_was_found_in_the_data_is_told_below_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(LocalStore(tmp_path / "store"), tmp_path / "cache")
    planned = [PlannedTask(resolve_task(SPEC), Staleness(is_stale=True, reason="it has no adapter yet"))]
    details = {"prepare_data": {"warnings": ["test has only 26 rows: scores on it are rough"]}}
    told = report().model_copy(update={"details": details})
    (row,) = describe_tasks(planned, {"reviews": told}, registry)
    print_summary([row], seconds=20.0, tracking_uri="sqlite:///mlflow.db")
    assert "\nwarning: reviews: test has only 26 rows: scores on it are rough\n" in capsys.readouterr().out


def test_a_refused_task_without_a_champion_is_not_up_to_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(LocalStore(tmp_path / "store"), tmp_path / "cache")
    adapter = write_adapter(tmp_path / "adapter", task="reviews")
    enroll(registry, adapter, promote=False, reasons=("too weak",), by="ann")
    staleness = Staleness(is_stale=False, reason="v1 was refused: too weak", version=1, is_refused=True)
    (row,) = describe_tasks([PlannedTask(resolve_task(SPEC), staleness)], {}, registry)
    assert (row["outcome"], row["version"], row["champion"]) == ("challenger", 1, None)
    print_summary([row], seconds=1.0, tracking_uri="sqlite:///mlflow.db")
    shown = capsys.readouterr().out
    assert "Not trained again:\n  reviews: v1 was refused: too weak\n" in shown
    assert "reviews has no champion, so that lorry predict and lorry pull find nothing; to use v1" in shown
    assert "lorry promote reviews v1 --reason" in shown
    assert "Next:" not in shown
    # Where another version is the champion, only the refusal is told.
    registry.promote("reviews", 1, reason="a test")
    (row,) = describe_tasks([PlannedTask(resolve_task(SPEC), staleness)], {}, registry)
    print_summary([row], seconds=1.0, tracking_uri="sqlite:///mlflow.db")
    assert "has no champion" not in capsys.readouterr().out


def test_what_was_rolled_back_is_not_called_current(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(LocalStore(tmp_path / "store"), tmp_path / "cache")
    for seed in (1, 2):
        adapter = write_adapter(tmp_path / f"adapter-{seed}", task="reviews", seed=seed)
        registry.publish(adapter.path, adapter.manifest)
        judged = registry.ledger.read_state("reviews").champion_version
        registry.register("reviews", adapter.adapter_id, promote=True, judged_champion=judged, reasons=())
    registry.rollback("reviews", reason="it answers nonsense")
    staleness = Staleness(is_stale=False, reason="v2 is not in use: why", version=2, retired="rolled back")
    (row,) = describe_tasks([PlannedTask(resolve_task(SPEC), staleness)], {}, registry)
    assert (row["outcome"], row["version"], row["champion"]) == ("rolled back", 2, 1)
    print_summary([row], seconds=1.0, tracking_uri="sqlite:///mlflow.db")
    shown = capsys.readouterr().out
    assert "Not trained again:\n  reviews: v2 is not in use: why\n" in shown
    assert "current" not in shown


def test_the_best_of_what_costs_nothing_is_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, Any] = dict.fromkeys(
        ("version", "single_answer", "published", "seconds", "source", "step", "champion")
    )
    baselines = [
        {"name": "copy of the input", "value": 0.125},
        {"name": "most frequent answer", "value": 0.25},
    ]
    row |= {"task": "reviews", "outcome": "promoted", "baselines": baselines, "data_warnings": []}
    print_summary([row], seconds=1.0, tracking_uri="sqlite:///mlflow.db")
    shown = capsys.readouterr().out
    assert "Baseline" in shown
    assert "0.250" in shown
    assert "baseline: trivial (most frequent answer)" in shown


def test_a_refusal_is_a_verdict_then_its_reasons_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, Any] = dict.fromkeys(("single_answer", "published", "seconds", "source"))
    row |= {"task": "reviews", "outcome": "challenger", "version": 2, "champion": None, "step": "register"}
    row |= {"reason": "too weak; too few", "reasons": ["too weak", "too few"], "data_warnings": []}
    print_summary([row], seconds=1.0, tracking_uri="sqlite:///mlflow.db")
    assert "\nNot promoted: reviews v2\n  too weak\n  too few\n" in capsys.readouterr().out
    compared = {"champion": 1, "beside_champion": 0.874, "metric_title": "accuracy", "value": 0.859}
    compared |= {"trained_parameters": 1, "size_bytes": 1, "interval": [0.8, 0.9]}
    compared |= {"has_pair": False, "kind": "x"}
    print_summary([row | compared], seconds=1.0, tracking_uri="sqlite:///mlflow.db")
    shown = capsys.readouterr().out
    assert "\nNot promoted: reviews v2 with accuracy 0.859, champion v1 with 0.874\n  too weak\n" in shown


@pytest.mark.parametrize(
    ("address", "trainings", "lines"),
    [
        (
            "https://token@there:8/x/",
            TrainingsPage("7"),
            ["https://there:8/x/#/experiments/7/runs?workflowType=machine_learning"],
        ),
        ("http://there", None, ["http://there"]),
        (
            "sqlite:////data/mlflow.db",
            TrainingsPage("3", view="lorry"),
            [
                "mlflow ui --backend-store-uri sqlite:////data/mlflow.db",
                "http://127.0.0.1:5000/#/experiments/3/runs?workflowType=machine_learning"
                "&viewStateShareKey=lorry",
            ],
        ),
        ("postgresql://me:secret@db/mlflow", None, ['mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI"']),
    ],
)
def test_the_next_step_leads_to_the_trainings_in_mlflow(
    capsys: pytest.CaptureFixture[str], address: str, trainings: TrainingsPage | None, lines: list[str]
) -> None:
    row: dict[str, Any] = dict.fromkeys(
        ("version", "single_answer", "published", "seconds", "source", "step")
    ) | {"data_warnings": []}
    row |= {"task": "reviews", "kind": "regression", "outcome": "promoted", "champion": 1, "has_pair": False}
    print_summary([row], seconds=1.0, tracking_uri=address, find_trainings=lambda _task: trainings)
    shown = [line.strip() for line in capsys.readouterr().out.partition("Next:")[2].splitlines()]
    assert [
        line[line.find("mlflow ui") :] if "mlflow ui" in line else line for line in shown[-len(lines) :]
    ] == lines
    assert "secret" not in " ".join(shown)
    assert "token" not in " ".join(shown)


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (80, ["Task", "Version", "Metric", "Test", "95 % interval", "Baseline", "Outcome"]),
        (100, ["Task", "Version", "Method", "Metric", "Test", "95 % interval", "Baseline", "Outcome"]),
        (160, ["Task", "Version", "Method", "Trained", "Adapter", "Metric", "Test", "Seconds", "Outcome"]),
    ],
)
def test_on_a_narrow_terminal_the_table_keeps_what_tells_most(
    monkeypatch: pytest.MonkeyPatch, width: int, columns: list[str]
) -> None:
    terminal = open_terminal(monkeypatch, width)
    row: dict[str, Any] = {
        **dict.fromkeys(("single_answer", "published", "source", "step", "champion")),
        **{"task": "entailment", "version": 12, "outcome": "promoted", "method": "lora", "seconds": 102.0},
        **{"trained_parameters": 74_498, "size_bytes": 304_742, "metric_title": "accuracy"},
        **{"value": 0.8, "interval": [0.731, 0.863], "baselines": [{"name": "majority", "value": 0.23}]},
        **{"data_warnings": ["train has 16 rows whose text it has with another class too " * 3]},
        "beside_probe": "accuracy: lora r=8 0.800, linear probe on the frozen base 0.819; " * 3,
    }
    print_summary([row], seconds=1.0, tracking_uri="sqlite:///mlflow.db")
    shown = terminal.read_plain()
    check_lines(shown, width)
    head = next(line for line in shown.splitlines() if line.startswith("Task"))
    assert [column for column in columns if column not in head] == []
    # The reference that nobody gave is not even among what is not shown.
    assert "Published" not in shown


def test_an_adapter_that_is_what_training_began_with_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    why = "accuracy on validation was 0.650 when training began, and 0.610 in the end"
    tell_start(report({"kept_start": why}))
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith(f"note: reviews: training did not improve on the linear head; kept it: {why}.")
    assert told.endswith("Consider method: {name: probe}, which takes seconds")
    tell_start(report())
    assert capsys.readouterr().err == ""
    assert read_task(report({"kept_start": why})).kept_start == why


@pytest.mark.parametrize(
    ("rows", "has_pair", "typed"),
    [
        ([{"text": "a rather long text"}, {"text": "it's good"}], False, ["it's good"]),
        ([{"text": 'costs $5 "net"'}, {"text": "odd\x1b"}, {"text": " "}], False, ['costs $5 "net"']),
        ([{"text": "where?", "text_pair": "there!"}], True, ["where?", "--pair", "there!"]),
        ([{"text": "x" * 500}], False, ["..."]),
        ([], True, ["...", "--pair", "..."]),
    ],
)
def test_the_next_step_predicts_a_test_row_of_the_task(
    capsys: pytest.CaptureFixture[str], rows: list[dict[str, str]], has_pair: bool, typed: list[str]
) -> None:
    examples = [Example(row=row, label="a") for row in rows]
    row: dict[str, Any] = dict.fromkeys(
        ("version", "single_answer", "published", "seconds", "source", "step")
    ) | {"data_warnings": []}
    row |= {"task": "reviews", "kind": "x", "outcome": "promoted", "champion": 1, "has_pair": has_pair}
    row |= {"example": find_example(examples)}
    print_summary([row], seconds=1.0, tracking_uri="http://there")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if " predict " in line)
    assert shlex.split(line)[1:] == ["predict", "reviews", *typed]
