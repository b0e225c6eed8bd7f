from typing import Any

import pytest

from lorry_components.steps.report.step import TaskReport
from lorry_components.tasks.resolution import resolve_task
from lorry_components.tasks.staleness import Staleness
from lorry_pipelines.cli.collapse_advice import advise_after_collapse
from lorry_pipelines.cli.run_summary import describe_tasks
from lorry_pipelines.scheduling import PlannedTask
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import TaskSpec, TrainSpec


@pytest.mark.parametrize(
    ("train", "steps", "told"),
    [
        (
            {"epochs": 3},
            21,
            "it took only 21 optimiser steps (213 rows, 32 a step), and so few are the usual reason: "
            "train.epochs=29 would make 203 of them, and a smaller train.batch_size makes more of each epoch",
        ),
        (
            {"epochs": 3, "batch_size": 8, "gradient_accumulation": 2},
            42,
            "train.epochs=15 would make 210 of them",
        ),
        (
            {"steps": 1},
            1,
            "only 1 optimiser step (213 rows, 32 a step), and so few are the usual reason: try ",
        ),
        ({"steps": 20}, 20, "try train.steps=200"),
        # Its length was left open.
        (
            {},
            100,
            "it took only 100 optimiser steps (213 rows, 8 a step), and so few are the usual reason: try ",
        ),
        ({}, 0, "nothing is trained in steps here"),
        ({}, None, "too few optimiser steps are the usual reason"),
    ],
)
def test_too_few_steps_are_named_first(train: dict[str, Any], steps: int | None, told: str) -> None:
    advice = advise_after_collapse(TrainSpec.model_validate(train), steps=steps, rows=213, rate=2e-3)
    assert told in advice
    assert "learning_rate" not in advice


def test_after_many_steps_the_learning_rate_is_named() -> None:
    advice = advise_after_collapse(TrainSpec(), steps=1_200, rows=213, rate=2e-3)
    assert advice == (
        "it took 1,200 optimiser steps, so that their number is hardly the reason: a lower "
        "train.learning_rate (0.002 here) or more data may help"
    )


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ("", "it took only 6 optimiser steps (64 rows, 8 a step)"),
        # More steps would hardly help: those that were made led to something worse.
        ("accuracy on validation was 0.7 when training began, and 0.6 in the end", None),
    ],
)
def test_what_was_trained_reaches_the_advice(tmp_path: Any, kept: str, told: str | None) -> None:
    spec = TaskSpec.model_validate(
        {
            "name": "reviews",
            "kind": "text-classification",
            "base": {"model": "./base"},
            "data": {"source": "rows.jsonl"},
            "method": {"name": "lora"},
        }
    )
    report = TaskReport(
        task="reviews",
        status="challenger",
        step="register",
        reason="too weak",
        failure=None,
        details={
            "prepare_data": {"rows": {"train": 64, "test": 8}},
            "finetune": {"steps": 6, "learning_rate": 2e-3, "kept_start": kept},
            "evaluate": {"single_answer": "good"},
        },
        seconds={},
    )
    planned = [PlannedTask(resolve_task(spec), Staleness(is_stale=True, reason="it has no adapter yet"))]
    registry = Registry(LocalStore(tmp_path / "store"), tmp_path / "cache")
    (row,) = describe_tasks(planned, {"reviews": report}, registry)
    assert row["advice"] is None if told is None else row["advice"].startswith(told)
