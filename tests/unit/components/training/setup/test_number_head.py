"""Heads that learn numbers: a task is learned alike whatever the units of its labels."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from lorry_components.inference import assemble_adapter
from lorry_components.methods import METHODS
from lorry_components.models.bases import resolve_base
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.prepare_data.step import Example, load_part
from lorry_components.task_types import TASK_TYPES, InputForm
from lorry_components.tasks.definition import find_method, find_task_type
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.setup.number_head import NumberHead, find_number_head
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
FACTOR, SHIFT = 1e5, 3e5


@dataclass(frozen=True)
class Found:
    """What an adapter predicts of the validation rows, and the error that was logged at the end."""

    truth: NDArray[np.float64]
    predicted: NDArray[np.float64]
    error: float


@pytest.fixture
def predict(
    make_spec: MakeSpec,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Found]:
    """Return a function that trains on the same rows with labels in other units."""

    def train(factor: float, shift: float, **task: Any) -> Found:
        def load(data: Path, part: str) -> list[Example]:
            examples = load_part(data, part)
            return [replace(example, label=factor * float(example.label) + shift) for example in examples]

        monkeypatch.setattr("lorry_components.steps.finetune.step.load_part", load)
        spec, data, folder = make_spec(**task), tiny_data("regression"), tmp_path / f"{factor:g}"
        logged: dict[str, float] = {}
        summary = finetune(
            resolve_task(spec),
            data,
            folder,
            checkpoints=tmp_path / f"{factor:g}-checkpoints",
            log_metrics=lambda metrics, _step: logged.update(metrics),
        )
        predictor = assemble_adapter(
            folder / "adapter",
            base=resolve_base(spec.base),
            task_type=find_task_type(spec),
            method=find_method(spec),
            labels=summary.labels,
        )
        examples = load(data, "validation")
        predictions = predictor.predict([example.row for example in examples])
        return Found(
            truth=np.asarray([example.label for example in examples], dtype=float),
            predicted=np.asarray([prediction["value"] for prediction in predictions]),
            error=logged["validation/rmse"],
        )

    return train


@pytest.mark.parametrize("method", ["lora", "full", "adapter-h", "p-tuning-v2"])
def test_labels_in_other_units_are_learned_alike(predict: Callable[..., Found], method: str) -> None:
    usual, large = predict(1.0, 0.0, method=method), predict(FACTOR, SHIFT, method=method)
    assert np.std(usual.predicted) > 0
    np.testing.assert_allclose((large.predicted - SHIFT) / FACTOR, usual.predicted, atol=2e-3)


def test_a_head_without_a_bias_learns_the_mean_itself(predict: Callable[..., Found]) -> None:
    task = {"base": "gpt2", "method": {"name": "lora", "targets": ["c_attn"], "r": 4}}
    usual, large = predict(1.0, 0.0, **task), predict(FACTOR, 0.0, **task)
    np.testing.assert_allclose(large.predicted / FACTOR, usual.predicted, atol=2e-3)


def test_errors_in_training_are_in_the_units_of_the_labels(predict: Callable[..., Found]) -> None:
    found = predict(FACTOR, SHIFT)
    error = np.sqrt(np.mean((found.predicted - found.truth) ** 2))
    assert found.error == pytest.approx(error, rel=1e-3)


def test_numbers_are_told_and_told_back(tiny_base: Callable[[str], Path]) -> None:
    head = find(tiny_base("bert"), [1.0, 2.0, 6.0])
    assert head is not None
    assert head.mean == 3.0
    assert np.mean(head.shrink([1.0, 2.0, 6.0])) == pytest.approx(0)
    assert np.std(head.shrink([1.0, 2.0, 6.0])) == pytest.approx(1)
    outputs = np.asarray([[value] for value in head.shrink([1.0, 2.0, 6.0])], dtype=np.float32)
    np.testing.assert_allclose(head.restore(outputs), [[1.0], [2.0], [6.0]], rtol=1e-6)


def test_equal_numbers_keep_their_size(tiny_base: Callable[[str], Path]) -> None:
    head = find(tiny_base("bert"), [7.0, 7.0])
    assert head is not None
    assert (head.mean, head.deviation) == (7.0, 1.0)


def test_a_head_of_the_base_keeps_its_units(tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_base("bert"), num_labels=1)
    model.save_pretrained(tmp_path)
    assert find(tmp_path, [1.0, 2.0]) is None


def test_classes_are_no_numbers(tiny_base: Callable[[str], Path]) -> None:
    assert find(tiny_base("bert"), ["a", "b"], kind="text-classification", labels=["a", "b"]) is None


def find(
    base: Path, targets: list[Any], kind: str = "regression", labels: list[str] | None = None
) -> NumberHead | None:
    chosen = TASK_TYPES[kind](InputForm(max_length=32))
    # A rank of one has layers of one output too.
    method = METHODS["lora"]({"r": 1, "targets": ["query"]}, chosen.peft_task_type)
    bare, newly_initialized = chosen.load_model(base, labels)
    return find_number_head(chosen, method.adapt(bare, newly_initialized), newly_initialized, targets)
