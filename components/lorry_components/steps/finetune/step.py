"""The fine-tuning step as a plain function."""

import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_components.progress import Progress, ignore_progress
from lorry_components.steps.finetune.assembly import build_trainer
from lorry_components.steps.finetune.setup import TrainingSetup, set_up_training
from lorry_components.steps.prepare_data.step import load_card, load_part
from lorry_components.tasks.resolution import ResolvedTask
from lorry_components.training.distributed import is_first_process, part_random_numbers
from lorry_components.training.number_head import find_number_head
from lorry_components.training.training_summary import ADAPTER_FOLDER, TrainingSummary, read_versions
from lorry_registry.digests import digest_document, shorten_digest
from lorry_registry.errors import StoreError, TrainingError
from lorry_registry.manifest import WEIGHTS_NAME, TrainingInputs

if TYPE_CHECKING:
    from lorry_components.training.trainer import AdapterTrainer, LogMetrics

# A disk with less than this left counts as full.
_LEAST_ROOM = 1 << 20


def finetune(
    task: ResolvedTask,
    data: Path,
    target: Path,
    *,
    checkpoints: Path,
    progress: Progress = ignore_progress,
    log_metrics: "LogMetrics | None" = None,
) -> TrainingSummary:
    """Train an adapter.

    Args:
        task: The task; its base is resolved, the source of its data is not.
        data: The folder that ``prepare_data`` wrote.
        target: Where to write ``adapter/`` and ``training.json``. The summary comes last.
        checkpoints: A folder of this very training: when it holds a checkpoint, training continues from there
            and ends with the same weights as if it had never stopped.
        progress: Called with how many steps are done.
        log_metrics: Called with losses and validation metrics.

    Raises:
        BaseModelError: The base is not usable.
        InvalidDataError: Rows are too long for the task type on this base.
        InvalidTaskError: The method cannot work on this base.
        MissingExtraError: The method or the optimizer needs a library that is not installed.
        StoreError: The disk is full.
        TrainingError: The method does not fit the base, the optimizer does not work on this machine, the loss
            diverged, or the adapter is too large.
    """
    spec = task.spec
    card = load_card(data)
    setup = set_up_training(task, card.labels)
    _check_size(setup, target)
    parts = {part: load_part(data, part) for part in ("train", "validation", "test")}
    # Those of the test part too: evaluation would refuse them only after training is paid for.
    rows = [example.row for examples in parts.values() for example in examples]
    task.task_type.check_rows(setup.reader, rows)
    head = find_number_head(
        task.task_type, setup.model, setup.newly_initialized, [example.label for example in parts["train"]]
    )
    trainer = build_trainer(
        setup,
        parts,
        head=head,
        labels=card.labels,
        checkpoints=checkpoints,
        progress=progress,
        log_metrics=log_metrics,
    )
    part_random_numbers(spec.train.seed)
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
    if is_first_process():
        _write_adapter(setup, target)
    trained_rows = (
        (state.global_step - resumed_from) * spec.train.batch_size * spec.train.gradient_accumulation
    )
    summary = TrainingSummary(
        base=task.base.identity,
        inputs=TrainingInputs(
            source_digest=card.source_digest,
            data_digest=card.data_digest,
            recipe_digest=task.recipe_digest,
        ),
        labels=card.labels,
        has_pair=spec.data.columns.text_pair is not None,
        parameters=setup.parameters,
        learning_rate=setup.learning_rate,
        device=setup.hardware.name,
        precision=setup.precision.name,
        examples=len(parts["train"]),
        steps=state.global_step,
        resumed_from=resumed_from,
        seconds=seconds,
        examples_per_second=trained_rows / seconds if seconds else 0.0,
        loss=loss,
        libraries=read_versions(task.task_type),
    )
    if is_first_process():
        summary.save(target)
    return summary


def name_checkpoints(task: ResolvedTask, data: Path) -> str:
    """Return the name of the folder in which this very training keeps its checkpoints.

    Another base, other rows or another recipe lead to another folder, so that no training continues from the
    checkpoint of a different one.

    Raises:
        BaseModelError: The base is not usable.
    """
    inputs = {
        "base": task.base.identity.fingerprint,
        "data": load_card(data).data_digest,
        "recipe": task.recipe_digest,
    }
    return f"{task.spec.name}-{shorten_digest(digest_document(inputs), 16)}"


def _train(trainer: "AdapterTrainer", checkpoints: Path, *, keeps_prefix: bool) -> tuple[float, int]:
    """Train to the end; return the seconds that it took and the step that it continued from."""
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
        # The libraries that write checkpoints report a full disk by other errors than OSError.
        if shutil.disk_usage(checkpoints).free > _LEAST_ROOM:
            raise
        raise StoreError(
            "no checkpoint can be written: the disk is full",
            where=str(checkpoints),
            todo="make room and run again: training continues from the last checkpoint, if there is one",
        ) from error
    resumed_from = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    return time.perf_counter() - started, resumed_from


def _read_loss(history: Sequence[dict[str, Any]]) -> float:
    losses = [entry["loss"] for entry in history if "loss" in entry]
    return float(losses[-1]) if losses else math.nan


def _check_size(setup: TrainingSetup, target: Path) -> None:
    """Save the untrained adapter and throw it away: one that is too large is refused before training."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        _save_within_limit(setup, Path(scratch))


def _write_adapter(setup: TrainingSetup, target: Path) -> None:
    folder = target / ADAPTER_FOLDER
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        partial = Path(scratch) / ADAPTER_FOLDER
        partial.mkdir()
        _save_within_limit(setup, partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)


def _save_within_limit(setup: TrainingSetup, folder: Path) -> None:
    spec, method = setup.task.spec, setup.task.method
    method.save(setup.model, folder, setup.task.base.identity)
    size = (folder / WEIGHTS_NAME).stat().st_size / 2**20
    limit = spec.method.max_adapter_mib or method.max_adapter_mib
    if limit is not None and size > limit:
        raise TrainingError(
            f"the adapter takes {size:.1f} MiB, above the limit of {limit:g} MiB",
            where=spec.name,
            todo="choose fewer targets or a lower rank, or raise method.max_adapter_mib",
        )
