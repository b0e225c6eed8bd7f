"""The score of a base on a task without any training: by its discrete prompt alone."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from lorry_components.inference import Predictor
from lorry_components.methods import AdaptedModel
from lorry_components.progress import Progress, ignore_progress
from lorry_components.steps.evaluate.step import score_predictions
from lorry_components.steps.prepare_data.step import load_card, load_part
from lorry_components.tasks.resolution import ResolvedTask
from lorry_registry.errors import TrainingError
from lorry_registry.manifest import Evaluation


def score_zero_shot(
    task: ResolvedTask, data: Path, *, part: str = "test", progress: Progress = ignore_progress
) -> Evaluation:
    """Score the base itself on a part of the data, with the words of ``data.template`` and no soft tokens.

    Args:
        task: The task; its method and its training section play no part.
        data: The folder that ``prepare_data`` wrote.
        part: ``train``, ``validation`` or ``test``.
        progress: Called with how many rows are done.

    Raises:
        BaseModelError: The base is not usable.
        TrainingError: The task type puts a head on the base that is random before training.
    """
    predictor = assemble_base(task, load_card(data).labels)
    task_type = predictor.task_type
    examples = load_part(data, part)
    rows, targets = task_type.group_targets(
        [example.row for example in examples], [example.label for example in examples]
    )
    predictions = predictor.predict(rows, report=lambda done: progress(done, len(rows)))
    return score_predictions(task.spec, task_type, targets, predictions, part=part)


def assemble_base(task: ResolvedTask, labels: Sequence[str] | None) -> Predictor:
    """Load the base of a task and return a predictor that uses it alone.

    Args:
        task: The task; its method and its training section play no part.
        labels: The classes, or None.

    Raises:
        BaseModelError: The base is not usable.
        TrainingError: The task type puts a head on the base that is random before training.
    """
    folder = task.base.folder
    task_type = type(task.task_type)(dataclasses.replace(task.task_type.form, soft_template=None))
    model, newly_initialized = task_type.load_model(folder, labels)
    if newly_initialized:
        raise TrainingError(
            f"a {task.spec.kind} has a head that is random before it is trained: there is nothing to score",
            where=task.spec.name,
            todo="choose a task type that answers in words, such as knowledge-probing",
        )
    adapted = AdaptedModel(model.train(mode=False), contextlib.nullcontext)
    return Predictor(adapted, task_type.load_reader(folder), task_type, labels)
