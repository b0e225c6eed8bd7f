"""The fine-tuning step as a plain function."""

import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_components.methods import Method
from lorry_components.models.bases import Base, resolve_base
from lorry_components.models.blocks import read_width
from lorry_components.models.dropout_fields import list_dropouts
from lorry_components.progress import Progress, ignore_progress
from lorry_components.steps.prepare_data.step import Example, load_card, load_part
from lorry_components.task_types import TaskType
from lorry_components.tasks.checks import check_base, find_method, find_task_type, load_config
from lorry_components.training.byte_dropout import quicken_dropout
from lorry_components.training.distributed import ALONE, ProcessGroup, separate_random_numbers
from lorry_components.training.number_head import NumberHead, find_number_head
from lorry_components.training.optimizers import name_optimizer, prepare_optimizer
from lorry_components.training.precision import Hardware, Precision, choose_precision, detect_hardware
from lorry_components.training.training_summary import ADAPTER_FOLDER, TrainingSummary, read_versions
from lorry_registry.digests import digest_document, shorten_digest
from lorry_registry.errors import StoreError, TrainingError
from lorry_registry.manifest import WEIGHTS_NAME, ParameterCounts, TrainingInputs
from lorry_registry.sizes import MIB, format_in
from lorry_registry.task_spec import TaskSpec

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainingArguments

    from lorry_components.training.trainer import AdapterTrainer, EncodedExamples, LogMetrics

_DEFAULT_EPOCHS = 3.0
_CHECKPOINTS_PER_RUN = 10
_LOGS_PER_RUN = 50
# A disk with less than this left is taken for full.
_LEAST_ROOM = 1 << 20


@dataclass(frozen=True, slots=True)
class _Setup:
    """Everything that is loaded and checked before the first step is spent."""

    base: Base
    task_type: TaskType
    method: Method
    model: "nn.Module"
    reader: Any
    newly_initialized: frozenset[str]
    parameters: ParameterCounts
    learning_rate: float
    hardware: Hardware
    precision: Precision
    group: ProcessGroup


def finetune(
    spec: TaskSpec,
    data: Path,
    target: Path,
    *,
    checkpoints: Path,
    progress: Progress = ignore_progress,
    log_metrics: "LogMetrics | None" = None,
    group: ProcessGroup = ALONE,
) -> TrainingSummary:
    """Train an adapter.

    Args:
        spec: The task.
        data: The folder that ``prepare_data`` wrote.
        target: Where to write ``adapter/`` and ``training.json``. The summary comes last.
        checkpoints: A folder of this very training: when it holds a checkpoint, training goes on from there
            and ends with the same weights as if it had never stopped.
        progress: Told how many steps are done.
        log_metrics: Told losses and validation metrics.
        group: The processes that train together; the first of them writes.

    Raises:
        BaseModelError: The base is not usable.
        InvalidDataError: Rows are too long for the task type on this base.
        InvalidTaskError: The method cannot work on this base.
        MissingExtraError: The method or the optimiser needs a library that is not installed.
        StoreError: The disk is full.
        TrainingError: The method does not fit the base, the optimiser does not work on this machine, the loss
            diverged, or the adapter is too large.
    """
    card = load_card(data)
    setup = _set_up(spec, card.labels, group)
    _check_size(spec, setup, target)
    parts = {part: load_part(data, part) for part in ("train", "validation", "test")}
    # Those of test too: the evaluation would find out when training is paid for.
    rows = [example.row for examples in parts.values() for example in examples]
    setup.task_type.check_rows(setup.reader, rows)
    head = find_number_head(
        setup.task_type, setup.model, setup.newly_initialized, [example.label for example in parts["train"]]
    )
    trainer = _build_trainer(
        spec,
        setup,
        parts,
        head=head,
        labels=card.labels,
        checkpoints=checkpoints,
        callbacks=[_watch(progress, log_metrics)],
    )
    separate_random_numbers(spec.train.seed, group)
    seconds, resumed_from = _train(trainer, checkpoints, keeps_prefix=spec.train.cache_frozen_layers)
    state = trainer.state
    loss = _read_loss(state.log_history)
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss became {loss}",
            where=spec.name,
            todo="lower train.learning_rate, or write precision: fp32",
        )
    if head is not None:
        head.fold()
    if group.is_first:
        _write_adapter(spec, setup, target)
    examples = len(parts["train"])
    trained_rows = (
        (state.global_step - resumed_from) * spec.train.batch_size * spec.train.gradient_accumulation
    )
    summary = TrainingSummary(
        base=setup.base.identity,
        inputs=TrainingInputs(
            source_digest=card.source_digest,
            data_digest=card.data_digest,
            recipe_digest=spec.recipe_digest,
        ),
        labels=card.labels,
        has_pair=spec.data.columns.text_pair is not None,
        parameters=setup.parameters,
        learning_rate=setup.learning_rate,
        device=setup.hardware.name,
        precision=setup.precision.name,
        examples=examples,
        steps=state.global_step,
        resumed_from=resumed_from,
        seconds=seconds,
        examples_per_second=trained_rows / seconds if seconds else 0.0,
        loss=loss,
        libraries=read_versions(setup.task_type),
    )
    if group.is_first:
        summary.save(target)
    return summary


def _set_up(spec: TaskSpec, labels: Sequence[str] | None, group: ProcessGroup) -> _Setup:
    import torch
    from transformers import set_seed

    if spec.train.batch_size % group.count:
        raise TrainingError(
            f"a batch of {spec.train.batch_size} cannot be divided among {group.count} processes",
            where="train.batch_size",
            todo=f"choose a multiple of {group.count}, or another resources.count",
        )
    base = resolve_base(spec.base)
    check_base(spec, base.folder)
    hardware = detect_hardware()
    precision = choose_precision(
        spec.train.precision, hardware, max_length=spec.data.max_length, is_packed=spec.train.packing
    )
    if group.is_first:
        # What works on one of a machine's devices works on its others.
        prepare_optimizer(spec.train.optimizer, hardware.device)
    task_type, method = find_task_type(spec), find_method(spec)
    set_seed(spec.train.seed)
    bare, newly_initialized = task_type.load_model(
        base.folder,
        labels,
        **({} if task_type.reads_images else _list_model_options(spec, base, precision)),
        **method.list_load_options(),
    )
    learning_rate = spec.train.learning_rate or method.choose_learning_rate(read_width(bare))
    model = method.adapt(bare, newly_initialized)
    if method.freezes_base and precision.name != "fp32":
        _cast_frozen(model, torch.bfloat16 if precision.name == "bf16" else torch.float16)
    if spec.train.packing:
        # With a cache, sequences would not be told apart.
        bare.config.use_cache = False
    if hardware.device == "cpu":
        quicken_dropout(model)
    parameters = method.count_parameters(model, newly_initialized)
    reader = task_type.load_reader(base.folder)
    return _Setup(
        base,
        task_type,
        method,
        model,
        reader,
        newly_initialized,
        parameters,
        learning_rate,
        hardware,
        precision,
        group,
    )


def _list_model_options(spec: TaskSpec, base: Base, precision: Precision) -> dict[str, Any]:
    options: dict[str, Any] = list_dropouts(spec.train, load_config(base.folder))
    if precision.attention is not None:
        options["attn_implementation"] = precision.attention
    return options


def _cast_frozen(model: "nn.Module", dtype: Any) -> None:
    for parameter in model.parameters():
        # The packed numbers of a quantised base are no floating-point numbers.
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def _build_trainer(
    spec: TaskSpec,
    setup: _Setup,
    parts: dict[str, list[Example]],
    *,
    head: NumberHead | None,
    labels: Sequence[str] | None,
    checkpoints: Path,
    callbacks: Sequence[Any],
) -> "AdapterTrainer":
    from transformers import EarlyStoppingCallback
    from transformers.trainer_callback import PrinterCallback

    from lorry_components.training.packing import pack
    from lorry_components.training.sharding import shard_frozen
    from lorry_components.training.trainer import AdapterTrainer

    train = _encode(setup, parts["train"], labels, head)
    # In order of length, so that validation computes little on padding.
    held_out = sorted(parts["validation"], key=lambda example: sum(map(len, example.row.values())))
    targets = [example.label for example in held_out]
    metrics = setup.task_type.choose_metrics(spec.evaluate)

    def compute_metrics(prediction: Any) -> dict[str, float]:
        outputs = head.restore(prediction.predictions) if head else prediction.predictions
        return setup.task_type.score_training(outputs, targets, labels, metrics) or {}

    stopping = spec.train.early_stopping
    arguments = _build_arguments(spec, setup, len(train), checkpoints)
    if spec.train.offload:
        shard_frozen(setup.model, arguments.device)
    trainer = AdapterTrainer(
        method=setup.method,
        averages_tokens=setup.task_type.averages_tokens,
        predicts_next=setup.task_type.predicts_next,
        model=setup.task_type.prepare_training(setup.model, setup.reader),
        args=arguments,
        data_collator=pack if spec.train.packing else setup.task_type.build_collator(setup.reader),
        train_dataset=train,
        eval_dataset=_encode(setup, held_out, labels, head),
        compute_metrics=compute_metrics if setup.task_type.scores_training else None,
        callbacks=[*callbacks, *([EarlyStoppingCallback(stopping.patience)] if stopping else [])],
    )
    if spec.train.offload:
        trainer.own_placement()
    # Trainer's own printing goes to a terminal; progress and metrics have their own way out.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _watch(progress: Progress, log_metrics: "LogMetrics | None") -> Any:
    from lorry_components.training.trainer import ProgressCallback

    return ProgressCallback(progress, log_metrics or (lambda _metrics, _step: None))


def _encode(
    setup: _Setup,
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


def _build_arguments(spec: TaskSpec, setup: _Setup, rows: int, checkpoints: Path) -> "TrainingArguments":
    from transformers import TrainingArguments

    class Arguments(TrainingArguments):
        # Frozen weights that stay with the host are not to be moved.
        place_model_on_device = False if spec.train.offload else None

        @property
        def n_gpu(self) -> int:
            # Of a machine's GPUs a process uses one: Trainer would multiply the batch by their number.
            return min(1, int(super().n_gpu))

    train = spec.train
    on_cuda = setup.hardware.device == "cuda"
    steps_an_epoch = math.ceil(rows / (train.batch_size * train.gradient_accumulation))
    total = train.steps or math.ceil((train.epochs or _DEFAULT_EPOCHS) * steps_an_epoch)
    keeps_best = train.early_stopping is not None
    scores = setup.task_type.scores_training
    return Arguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=train.batch_size // setup.group.count,
        per_device_eval_batch_size=2 * train.batch_size // setup.group.count,
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
        metric_for_best_model=(spec.evaluate.primary or setup.task_type.primary) if scores else "loss",
        greater_is_better=scores,
        # Of the others the loss is all that is looked at: their outputs would be large.
        prediction_loss_only=not scores,
        activation_checkpointing=train.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if train.gradient_checkpointing else None,
        logging_steps=max(1, total // _LOGS_PER_RUN),
        # A loss that is not a number is to be seen, not replaced by a mean.
        logging_nan_inf_filter=False,
        # Or early stopping would lose its patience counter.
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=False,
        label_names=list(setup.task_type.target_names),
        dataloader_pin_memory=on_cuda,
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        report_to="none",
    )


def _train(trainer: "AdapterTrainer", checkpoints: Path, *, keeps_prefix: bool) -> tuple[float, int]:
    """Train to the end; return the seconds that it took and the step that it went on from."""
    from safetensors import SafetensorError

    from lorry_components.training.activation_cache import cached_prefix
    from lorry_components.training.trainer import find_checkpoint

    checkpoint = find_checkpoint(checkpoints)
    started = time.perf_counter()
    try:
        if checkpoint is None or not trainer.take_over(checkpoint):
            with cached_prefix(trainer, checkpoints) if keeps_prefix else nullcontext():
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except (RuntimeError, SafetensorError) as error:
        # A full disk is no OSError to the libraries that write checkpoints: it is told apart by its room.
        if shutil.disk_usage(checkpoints).free > _LEAST_ROOM:
            raise
        raise StoreError(
            "no checkpoint can be written: the disk is full",
            where=str(checkpoints),
            todo="make room and run again: training goes on from the last checkpoint, if there is one",
        ) from error
    resumed_from = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    return time.perf_counter() - started, resumed_from


def _read_loss(history: Sequence[dict[str, Any]]) -> float:
    losses = [entry["loss"] for entry in history if "loss" in entry]
    return float(losses[-1]) if losses else math.nan


def _check_size(spec: TaskSpec, setup: _Setup, target: Path) -> None:
    """Save the untrained adapter and throw it away: an adapter that will be too large is refused now."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        _save_within_limit(spec, setup, Path(scratch))


def _write_adapter(spec: TaskSpec, setup: _Setup, target: Path) -> None:
    folder = target / ADAPTER_FOLDER
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        partial = Path(scratch) / ADAPTER_FOLDER
        partial.mkdir()
        _save_within_limit(spec, setup, partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)


def _save_within_limit(spec: TaskSpec, setup: _Setup, folder: Path) -> None:
    setup.method.save(setup.model, folder, setup.base.identity)
    size = (folder / WEIGHTS_NAME).stat().st_size
    limit = spec.method.max_adapter_mib or setup.method.max_adapter_mib
    if limit is not None and size > limit * MIB:
        raise TrainingError(
            f"the adapter takes {format_in(size, 'MiB')}, above the limit of {limit:g} MiB",
            where=spec.name,
            todo="choose fewer targets or a lower rank, or raise method.max_adapter_mib",
        )


def name_checkpoints(spec: TaskSpec, data: Path) -> str:
    """Return the name of the folder in which this very training keeps its checkpoints.

    Another base, other rows or another recipe lead to another folder, so that no training goes on from the
    checkpoint of a different one.
    """
    inputs = {
        "base": resolve_base(spec.base).identity.fingerprint,
        "data": load_card(data).data_digest,
        "recipe": spec.recipe_digest,
    }
    return f"{spec.name}-{shorten_digest(digest_document(inputs), 16)}"
