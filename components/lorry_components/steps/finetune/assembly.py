"""From a task that is ready to be trained to transformers' Trainer."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_components.data.examples import Example
from lorry_components.progress import Progress
from lorry_components.steps.finetune.setup import TrainingSetup
from lorry_components.training.distributed import count_processes
from lorry_components.training.number_head import NumberHead
from lorry_components.training.optimizers import name_optimizer

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from lorry_components.training.trainer import AdapterTrainer, EncodedExamples, LogMetrics

_DEFAULT_EPOCHS = 3.0
_CHECKPOINTS_PER_RUN = 10
_LOGS_PER_RUN = 50


def build_trainer(
    setup: TrainingSetup,
    parts: Mapping[str, Sequence[Example]],
    *,
    head: NumberHead | None,
    labels: Sequence[str] | None,
    checkpoints: Path,
    progress: Progress,
    log_metrics: "LogMetrics | None",
) -> "AdapterTrainer":
    """Return the trainer of a task.

    Args:
        setup: The task, loaded.
        parts: The examples of ``train`` and ``validation``.
        head: Scales the labels of a regression, or None.
        labels: The classes, or None.
        checkpoints: Where checkpoints are kept.
        progress: Called with how many steps are done.
        log_metrics: Called with losses and validation metrics.
    """
    from transformers import EarlyStoppingCallback
    from transformers.trainer_callback import PrinterCallback

    from lorry_components.training.packing import pack
    from lorry_components.training.sharding import shard_frozen
    from lorry_components.training.trainer import AdapterTrainer, ProgressCallback

    spec, task_type = setup.task.spec, setup.task.task_type
    train = _encode(setup, parts["train"], labels, head)
    # In order of length, so that validation computes little on padding.
    held_out = sorted(parts["validation"], key=lambda example: sum(map(len, example.row.values())))
    targets = [example.label for example in held_out]
    metrics = task_type.choose_metrics(spec.evaluate)

    def compute_metrics(prediction: Any) -> dict[str, float]:
        outputs = head.restore(prediction.predictions) if head else prediction.predictions
        return task_type.score_training(outputs, targets, labels, metrics) or {}

    stopping = spec.train.early_stopping
    arguments = _build_arguments(setup, len(train), checkpoints)
    if spec.train.offload:
        shard_frozen(setup.model, arguments.device)
    trainer = AdapterTrainer(
        method=setup.task.method,
        averages_tokens=task_type.averages_tokens,
        predicts_next=task_type.predicts_next,
        model=task_type.prepare_training(setup.model, setup.reader),
        args=arguments,
        data_collator=pack if spec.train.packing else task_type.build_collator(setup.reader),
        train_dataset=train,
        eval_dataset=_encode(setup, held_out, labels, head),
        compute_metrics=compute_metrics if task_type.scores_training else None,
        callbacks=[
            ProgressCallback(progress, log_metrics or _log_nothing),
            *([EarlyStoppingCallback(stopping.patience)] if stopping else []),
        ],
    )
    if spec.train.offload:
        trainer.own_placement()
    # Trainer itself prints to a terminal; progress and metrics are reported in other ways.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _log_nothing(_metrics: Mapping[str, float], _step: int) -> None:
    pass


def _encode(
    setup: TrainingSetup,
    examples: Sequence[Example],
    labels: Sequence[str] | None,
    head: NumberHead | None,
) -> "EncodedExamples":
    from lorry_components.training.trainer import EncodedExamples

    rows = [example.row for example in examples]
    targets = [example.label for example in examples]
    if head is not None:
        targets = head.shrink(targets)
    return EncodedExamples(setup.task.task_type.encode_examples(setup.reader, rows, targets, labels))


def _build_arguments(setup: TrainingSetup, rows: int, checkpoints: Path) -> "TrainingArguments":
    from transformers import TrainingArguments

    spec, task_type = setup.task.spec, setup.task.task_type
    train = spec.train

    class Arguments(TrainingArguments):
        # Frozen weights that stay with the host must not be moved.
        place_model_on_device = False if train.offload else None

        @property
        def n_gpu(self) -> int:
            # A process uses one of a machine's GPUs: Trainer would multiply the batch by their number.
            return min(1, int(super().n_gpu))

    on_cuda = setup.hardware.device == "cuda"
    steps_an_epoch = math.ceil(rows / (train.batch_size * train.gradient_accumulation))
    total = train.steps or math.ceil((train.epochs or _DEFAULT_EPOCHS) * steps_an_epoch)
    keeps_best = train.early_stopping is not None
    scores = task_type.scores_training
    return Arguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=train.batch_size // count_processes(),
        per_device_eval_batch_size=2 * train.batch_size // count_processes(),
        gradient_accumulation_steps=train.gradient_accumulation,
        num_train_epochs=train.epochs or _DEFAULT_EPOCHS,
        max_steps=train.steps or -1,
        learning_rate=setup.learning_rate,
        lr_scheduler_type=train.schedule if train.schedule != "constant" else "constant_with_warmup",
        warmup_steps=train.warmup,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim=name_optimizer(train.optimizer, setup.hardware.device),
        seed=train.seed,
        bf16=setup.precision.name == "bf16",
        fp16=setup.precision.name == "fp16",
        use_cpu=setup.hardware.device == "cpu",
        eval_strategy="epoch",
        save_strategy="epoch" if keeps_best else "steps",
        save_steps=max(1, math.ceil(total / _CHECKPOINTS_PER_RUN)),
        save_total_limit=2,
        load_best_model_at_end=keeps_best,
        metric_for_best_model=(spec.evaluate.primary or task_type.primary) if scores else "loss",
        greater_is_better=scores,
        # Without scores only the loss is used, and keeping all outputs would take much memory.
        prediction_loss_only=not scores,
        activation_checkpointing=train.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if train.gradient_checkpointing else None,
        logging_steps=max(1, total // _LOGS_PER_RUN),
        # A loss that is not a number must be seen, not replaced by a mean.
        logging_nan_inf_filter=False,
        # Or early stopping would lose its patience counter.
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=False,
        label_names=list(task_type.target_names),
        dataloader_pin_memory=on_cuda,
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        report_to="none",
    )
