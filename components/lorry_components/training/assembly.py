"""The trainer of one task, put together from what was set up and the prepared rows."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_components.data.examples import Example
from lorry_components.methods.base import is_newly_initialized
from lorry_components.training.setup.model_setup import Setup
from lorry_components.training.setup.number_head import NumberHead
from lorry_registry.tasks.task_spec import TaskSpec

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from lorry_components.training.trainer import AdapterTrainer, EncodedExamples

_EVALUATIONS_PER_RUN = 20


def build_trainer(
    spec: TaskSpec,
    setup: Setup,
    *,
    train: Sequence[Example],
    validation: Sequence[Example],
    head: NumberHead | None,
    labels: Sequence[str] | None,
    checkpoints: Path,
    callbacks: "Sequence[TrainerCallback]",
) -> "AdapterTrainer":
    """Return a trainer that is ready to train.

    Args:
        spec: The task.
        setup: What was set up for it.
        train: The training rows.
        validation: The rows that epochs are evaluated on: all, where the best is kept, else at most 20.
        head: The head that learns numbers, if there is one.
        labels: The classes, or None.
        checkpoints: Where checkpoints are written.
        callbacks: What follows the training.
    """
    from transformers.trainer_callback import PrinterCallback

    from lorry_components.training.callbacks import EarlyStoppingCallback, SparseEvaluationCallback
    from lorry_components.training.distributed.sharding import shard_frozen
    from lorry_components.training.kernels.packing import pack
    from lorry_components.training.setup.arguments import build_arguments
    from lorry_components.training.trainer import AdapterTrainer

    encoded = _encode(setup, train, labels, head)
    # In order of length, so that validation computes little on padding.
    held_out = sorted(validation, key=lambda example: sum(map(len, example.row.values())))
    targets = [example.label for example in held_out]
    metrics = setup.task_type.choose_metrics(spec.evaluate)

    def compute_metrics(prediction: Any) -> dict[str, float]:
        outputs = head.restore(prediction.predictions) if head else prediction.predictions
        found = setup.task_type.score_training(outputs, targets, labels, metrics, spec.evaluate.positive)
        return found or {}

    stopping = spec.train.early_stopping
    arguments = build_arguments(spec, setup, len(encoded), checkpoints)
    if spec.train.offload:
        shard_frozen(setup.model, arguments.device)
    trainer = AdapterTrainer(
        method=setup.method,
        scale_learning_rate=partial(_scale_learning_rate, setup),
        form=setup.task_type.training_form,
        model=setup.task_type.prepare_training(setup.model, setup.reader),
        args=arguments,
        data_collator=pack if spec.train.packing else setup.task_type.build_collator(setup.reader),
        train_dataset=encoded,
        eval_dataset=_encode(setup, held_out, labels, head),
        compute_metrics=compute_metrics if setup.task_type.training_form.scores_outputs else None,
        callbacks=[
            *callbacks,
            EarlyStoppingCallback(stopping.patience)
            if stopping
            else SparseEvaluationCallback(_EVALUATIONS_PER_RUN),
        ],
    )
    if spec.train.offload:
        trainer.own_placement()
    # Trainer's own printing goes to a terminal; progress and metrics are reported by callbacks.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _scale_learning_rate(setup: Setup, name: str) -> float:
    if is_newly_initialized(name, setup.newly_initialized):
        return setup.head_learning_rate / setup.learning_rate
    return setup.method.scale_learning_rate(name)


def _encode(
    setup: Setup,
    examples: Sequence[Example],
    labels: Sequence[str] | None,
    head: NumberHead | None,
) -> "EncodedExamples":
    from lorry_components.training.trainer import EncodedExamples

    rows = [example.row for example in examples]
    targets = [example.label for example in examples]
    if head is not None:
        targets = head.shrink(targets)
    return EncodedExamples(setup.task_type.encode_examples(setup.reader, rows, targets, labels))
