"""The linear probe of a task: a linear model on the frozen base, fitted to its training rows.

It is what a head begins with (Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features and Underperform
Out-of-Distribution, https://arxiv.org/abs/2202.10054), what the method ``probe`` serves, and what every
adapter is compared with. A training begins with it less sure of its classes than it is.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lorry_components.data.examples import Example
from lorry_components.data.rows import Row
from lorry_components.methods import Method
from lorry_components.models.bases import Base
from lorry_components.models.configuration import load_config
from lorry_components.progress import Progress, ignore_progress
from lorry_components.task_types import TaskType
from lorry_components.task_types.head_choice import find_features_pooling
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_components.training.probe.adapted_features import AdaptedFeatures
from lorry_components.training.probe.feature_cache import FeatureCache, Features
from lorry_components.training.probe.frozen_features import FrozenFeatures
from lorry_components.training.probe.head_fitting import FittedHead, compute_outputs, fit_classes, fit_numbers
from lorry_components.training.setup.model_setup import Setup
from lorry_components.training.setup.number_head import NumberHead
from lorry_components.training.setup.precision import PrecisionName
from lorry_registry.errors import TrainingError

if TYPE_CHECKING:
    from torch import nn

PROBE_NAME = "linear_probe.safetensors"
MOST_ROWS = 50_000
"""Training rows above which a probe is not fitted only to compare an adapter with it."""

BEGINNING = 0.3
"""What a training's classes begin with of the probe's weights.

A probe that is sure of most training rows leaves them little to teach. Less of it tells the same classes
apart, and all rows go on teaching: measured in the lab book, "How sure a fitted head begins".
"""


class FeatureSource(Protocol):
    """What makes vectors of rows: the frozen base, or the base as a method changes it from the beginning."""

    task_type: SequenceHeadTaskType

    def compute(self, rows: Sequence[Row], progress: Progress = ...) -> Features:
        """Return the features of rows, shape (rows, width)."""


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A fitted linear model.

    Attributes:
        head: Its layer.
        answers: Its outputs for the validation rows, shape (rows, outputs).
        seconds: How long features and fit took.
    """

    head: FittedHead
    answers: Any
    seconds: float

    def save(self, folder: Path) -> None:
        """Write its layer into a folder, for :func:`load_layer`."""
        from safetensors.numpy import save_file

        from lorry_registry.files.atomic_write import whole_file

        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / PROBE_NAME) as partial:
            save_file({"weight": self.head.weight, "bias": self.head.bias}, partial)


def fit_linear_probe(
    features: FeatureSource,
    parts: Mapping[str, Sequence[Example]],
    labels: Sequence[str] | None,
    *,
    progress: Progress = ignore_progress,
) -> LinearProbe:
    """Fit a task's linear probe; the test rows are not looked at.

    Args:
        features: What makes vectors of rows.
        parts: The rows of ``train`` and ``validation``.
        labels: The classes, or None.
        progress: Called with how many rows the base has read.
    """
    started = time.perf_counter()
    train, validation = parts["train"], parts["validation"]
    total = len(train) + len(validation)

    def compute(examples: Sequence[Example], before: int) -> Features:
        rows = [example.row for example in examples]
        return features.compute(rows, lambda done, _total, _note="": progress(before + done, total))

    learned, held_out = compute(train, 0), compute(validation, len(train))
    targets, truth = (
        [features.task_type.encode_label(example.label, labels) for example in examples]
        for examples in (train, validation)
    )
    head = (
        fit_numbers(learned, targets, held_out, truth)
        if labels is None
        else fit_classes(learned, [*map(int, targets)], len(labels), held_out, [*map(int, truth)])
    )
    answers = compute_outputs(held_out, head.weight, head.bias)
    return LinearProbe(head, answers, time.perf_counter() - started)


def open_features(
    base: Base,
    task_type: TaskType,
    method: Method,
    cache: FeatureCache | None,
    *,
    precision: PrecisionName = "fp32",
) -> FrozenFeatures | None:
    """Return what computes a task's features; None: there is no linear probe for its type, or on its base.

    Args:
        base: The base.
        task_type: The task type.
        method: The method, which may need the base in four bits.
        cache: Where features are kept; None: nowhere.
        precision: The format that they are computed in.
    """
    if not isinstance(task_type, SequenceHeadTaskType):
        return None
    pooling = find_features_pooling(task_type.form, load_config(base.folder), base.folder)
    if pooling is None:
        return None
    options = method.list_load_options()
    return FrozenFeatures(base, task_type, pooling, load_options=options, cache=cache, precision=precision)


def load_layer(folder: Path) -> tuple[Any, Any] | None:
    """Return weight and bias of the probe in a candidate's folder; None: there is none."""
    from safetensors.numpy import load_file

    path = folder / PROBE_NAME
    if not path.is_file():
        return None
    tensors = load_file(path)
    return tensors["weight"], tensors["bias"]


def predict_outputs(features: Features, layer: tuple[Any, Any]) -> Any:
    """Return a probe's outputs for features, shape (rows, outputs)."""
    return compute_outputs(features, *layer)


def fit_to_adapted(
    setup: Setup, parts: Mapping[str, Sequence[Example]], labels: Sequence[str] | None
) -> LinearProbe:
    """Fit the head of an adapted base that does not start as the base; the test rows are not looked at.

    Args:
        setup: What was set up for the task, whose type has a head on whole texts.
        parts: The rows of ``train`` and ``validation``.
        labels: The classes, or None.

    Raises:
        TrainingError: There is no output layer that could take a fitted head.
    """
    task_type = setup.task_type
    assert isinstance(task_type, SequenceHeadTaskType)
    layer = find_output_layer(setup.model, setup.newly_initialized, 1 if labels is None else len(labels))
    return fit_linear_probe(AdaptedFeatures(setup, task_type, layer), parts, labels)


def write_into_head(setup: Setup, probe: LinearProbe, numbers: NumberHead | None) -> None:
    """Let a task's head be its linear probe.

    Args:
        setup: What was set up for the task.
        probe: The probe.
        numbers: The units that the head learns numbers in, if it does.
    """
    _write_layer(setup, probe.head.weight, probe.head.bias, numbers)


def write_beginning(setup: Setup, probe: LinearProbe, numbers: NumberHead | None) -> None:
    """Let the head of a training begin as its linear probe, with :data:`BEGINNING` of it for classes.

    Args:
        setup: What was set up for the task.
        probe: The probe.
        numbers: The units that the head learns numbers in, if it does.
    """
    is_number = probe.head.weight.shape[0] == 1
    share = np.float32(1.0 if is_number else BEGINNING)
    _write_layer(setup, probe.head.weight * share, probe.head.bias * share, numbers)


def _write_layer(setup: Setup, weight: Features, bias: Features, numbers: NumberHead | None) -> None:
    import torch

    layer = find_output_layer(setup.model, setup.newly_initialized, weight.shape[0])
    if numbers is not None:
        weight, bias = weight / numbers.deviation, (bias - numbers.mean) / numbers.deviation
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight, dtype=np.float32)))
        layer.bias.copy_(torch.from_numpy(np.ascontiguousarray(bias, dtype=np.float32)))


def find_output_layer(model: "nn.Module", newly_initialized: frozenset[str], outputs: int) -> Any:
    """Return the trained output layer of an adapted model.

    Raises:
        TrainingError: There is none that could take a fitted head.
    """
    from torch import nn

    from lorry_components.methods.base import is_newly_initialized

    layers = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.out_features == outputs
        and module.weight.requires_grad
        and is_newly_initialized(f"{name}.weight", newly_initialized)
    ]
    if not layers or layers[-1].bias is None:
        raise TrainingError(
            "its head has no output layer that could begin as a linear probe",
            where="head.init",
            todo="write head.init: random",
        )
    return layers[-1]
