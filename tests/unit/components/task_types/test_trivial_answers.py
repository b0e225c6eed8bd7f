"""Trivial baselines: each task type's own, and the untrained base where it can answer."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorry_components.inference import Predictor, assemble_adapter
from lorry_components.metrics.base import Prediction
from lorry_components.steps.evaluate.step import evaluate
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.prepare_data.step import load_part, prepare_data
from lorry_components.task_types import TASK_TYPES, InputForm, TaskType
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.manifest import Baseline

FORM = InputForm(max_length=16)
ROWS = [{"text": "one"}, {"text": "two"}]


def answer(
    kind: str, labels: Sequence[Any], classes: Sequence[str] | None = None
) -> dict[str, list[Prediction]]:
    return TASK_TYPES[kind](FORM).predict_trivially(ROWS, labels, classes)


def test_a_classification_answers_with_the_majority_of_the_training_rows() -> None:
    found = answer("text-classification", ["b", "a", "b", "b"], ["a", "b"])
    assert found == {"majority class": [{"label": "b", "score": 0.75, "scores": {"a": 0.25, "b": 0.75}}] * 2}


def test_a_regression_answers_with_the_mean_of_the_training_rows() -> None:
    assert answer("regression", [1.0, 2.0, 6.0]) == {"mean": [{"value": 3.0}] * 2}


@pytest.mark.parametrize("kind", ["text-generation", "text-to-text"])
def test_a_text_is_the_most_frequent_one_or_the_input(kind: str) -> None:
    assert answer(kind, ["x", "y", "y"]) == {
        "most frequent answer": [{"text": "y"}] * 2,
        "copy of the input": [{"text": "one"}, {"text": "two"}],
    }


def test_a_cloze_answers_with_the_most_frequent_objects() -> None:
    ((name, (first, second)),) = answer("knowledge-probing", ["Rome", "Paris", "Rome"]).items()
    assert (name, first) == ("most frequent answer", second)
    assert first == {
        "label": "Rome",
        "score": pytest.approx(2 / 3),
        "top": [["Rome", pytest.approx(2 / 3)], ["Paris", pytest.approx(1 / 3)]],
    }


def test_a_question_is_answered_as_most_are_which_may_be_not_at_all() -> None:
    kind = TASK_TYPES["question-answering"](FORM)
    nothing, something = kind.parse_label([]), kind.parse_label([{"text": "Rome", "start": 3}])
    found = kind.predict_trivially(ROWS, [nothing, something, nothing], None)
    assert found == {"most frequent answer": [{"answer": ""}] * 2}


@pytest.mark.parametrize(
    ("kind", "predictions", "targets", "single"),
    [
        ("text-generation", [{"text": "x"}, {"text": "x"}], [("x",), ("y",)], "x"),
        ("text-generation", [{"text": "x"}, {"text": "y"}], [("x",), ("y",)], None),
        # Where one answer is right for all, giving it is no fault.
        ("text-generation", [{"text": "z"}, {"text": "z"}], [("x", "y"), ("y",)], None),
        ("knowledge-probing", [{"label": "x"}, {"label": "x"}], [("x",), ("y",)], "x"),
    ],
)
def test_one_answer_for_all_rows_is_found(
    kind: str, predictions: list[Prediction], targets: list[Any], single: str | None
) -> None:
    assert TASK_TYPES[kind](FORM).find_single_answer(targets, predictions) == single


@pytest.mark.parametrize("kind", sorted(TASK_TYPES))
def test_every_task_type_has_something_that_costs_nothing(kind: str) -> None:
    task_type: TaskType = TASK_TYPES[kind](FORM)
    overrides = [
        getattr(type(task_type), name) is not getattr(TaskType, name)
        for name in ("predict_trivially", "reduce_to_base")
    ]
    assert any(overrides)


def test_an_evaluation_has_the_majority_beside_it(trained: Callable[..., Any], tmp_path: Path) -> None:
    found = trained("classification")
    report = evaluate(resolve_task(found.spec), found.data, found.candidate, tmp_path / "e", registry=None)
    (baseline,) = report.evaluation.baselines
    labels = [example.label for example in load_part(found.data, "train")]
    majority = max(sorted(set(map(str, labels))), key=labels.count)
    test = [example.label for example in load_part(found.data, "test")]
    value = float(np.mean([label == majority for label in test]))
    assert (baseline.name, baseline.examples) == ("majority class", len(test))
    assert baseline.value == pytest.approx(value)
    assert baseline.gain == pytest.approx(report.evaluation.headline.value - value)


def test_the_untrained_base_answers_the_same_rows_without_the_adapter(
    make_generator_spec: Callable[..., Any], tmp_path: Path
) -> None:
    spec = make_generator_spec()
    task = resolve_task(spec)
    prepare_data(task, tmp_path / "data")
    summary = finetune(task, tmp_path / "data", tmp_path / "candidate", checkpoints=tmp_path / "checkpoints")
    report = evaluate(task, tmp_path / "data", tmp_path / "candidate", tmp_path / "evaluation", registry=None)
    found: dict[str, Baseline] = {baseline.name: baseline for baseline in report.evaluation.baselines}
    assert set(found) == {"most frequent answer", "copy of the input", "untrained base"}
    predictor: Predictor = assemble_adapter(
        tmp_path / "candidate" / "adapter",
        base=task.base,
        task_type=task.task_type,
        method=task.build_method(),
        labels=summary.labels,
    )
    rows, targets = task.task_type.group_targets(
        [example.row for example in load_part(tmp_path / "data", "test")],
        [example.label for example in load_part(tmp_path / "data", "test")],
    )
    before = predictor.predict(rows)
    untrained = predictor.predict_as_base(rows)
    assert untrained is not None
    primary = report.evaluation.primary
    value = task.task_type.compute_metrics([primary], targets, untrained)[primary]
    assert found["untrained base"].value == pytest.approx(value)
    assert found["untrained base"].examples == len(rows)
    # The adapter is on again afterwards.
    assert predictor.predict(rows) == before
