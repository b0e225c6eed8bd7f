"""What a base scores on a task without any training: its discrete prompt alone."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from lorry_components.inference import Predictor
from lorry_components.methods import AdaptedModel
from lorry_components.models.bases import resolve_base
from lorry_components.progress import Progress, ignore_progress
from lorry_components.steps.evaluate.step import score_predictions
from lorry_components.steps.prepare_data.step import load_card, load_part
from lorry_components.task_types import TASK_TYPES, InputForm
from lorry_registry.errors import TrainingError
from lorry_registry.manifest import Evaluation
from lorry_registry.task_spec import TaskSpec


def score_zero_shot(
    spec: TaskSpec, data: Path, *, part: str = "test", progress: Progress = ignore_progress
) -> Evaluation:
    """Score the base itself on a part of the data, with the words of ``data.template`` and no soft tokens.

    Args:
        spec: The task. Its method and how it is trained play no part.
        data: The folder that ``prepare_data`` wrote.
        part: ``train``, ``validation`` or ``test``.
        progress: Told how many rows are done.

    Raises:
        BaseModelError: The base is not usable.
        TrainingError: The task type puts a head on the base that is random before training.
    """
    predictor = assemble_base(spec, load_card(data).labels)
    task_type = predictor.task_type
    examples = load_part(data, part)
    rows, targets = task_type.group_targets(
        [example.row for example in examples], [example.label for example in examples]
    )
    predictions = predictor.predict(rows, report=lambda done: progress(done, len(rows)))
    return score_predictions(spec, task_type, targets, predictions, part=part)


def assemble_base(spec: TaskSpec, labels: Sequence[str] | None) -> Predictor:
    """Load the base of a task and return what predicts with it alone.

    Args:
        spec: The task. Its method and how it is trained play no part.
        labels: The classes, or None.

    Raises:
        BaseModelError: The base is not usable.
        TrainingError: The task type puts a head on the base that is random before training.
    """
    base = resolve_base(spec.base)
    task_type = TASK_TYPES[spec.kind](dataclasses.replace(InputForm.of(spec), soft_template=None))
    model, newly_initialized = task_type.load_model(base.folder, labels)
    if newly_initialized:
        raise TrainingError(
            f"a {spec.kind} has a head that is random before it is trained: there is nothing to score",
            where=spec.name,
            todo="choose a kind that answers in words, such as knowledge-probing",
        )
    adapted = AdaptedModel(model.train(mode=False), contextlib.nullcontext)
    return Predictor(adapted, task_type.load_reader(base.folder), task_type, labels)
