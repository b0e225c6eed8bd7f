"""The fine-tuning step as a plain function."""

import contextlib
import logging
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorry_components.data.examples import Example
from lorry_components.data.fingerprinting import collect_fingerprints, save_fingerprints
from lorry_components.methods import Method
from lorry_components.models.quantization import import_peft_alone
from lorry_components.progress import Progress, ignore_progress
from lorry_components.steps.prepare_data.step import load_card, load_part
from lorry_components.task_types import TaskType
from lorry_components.tasks.base_checks import check_base
from lorry_components.tasks.resolution import ResolvedTask
from lorry_components.tasks.resolved_recipe import resolve_recipe
from lorry_components.training.assembly import build_trainer
from lorry_components.training.checkpoints.stored_checkpoints import CheckpointPlace
from lorry_components.training.distributed.node_agreement import check_same_start
from lorry_components.training.distributed.process_group import ALONE, ProcessGroup, separate_random_numbers
from lorry_components.training.probe.feature_cache import FeatureCache
from lorry_components.training.probe.linear_probe import (
    MOST_ROWS,
    PROBE_NAME,
    LinearProbe,
    fit_linear_probe,
    fit_to_adapted,
    open_features,
    write_beginning,
    write_into_head,
)
from lorry_components.training.probe.probe_fallback import count_without, give_up_worse_end
from lorry_components.training.resumption import START, Course, train_to_end
from lorry_components.training.setup.model_setup import Setup, check_batch_size, set_up
from lorry_components.training.setup.number_head import NumberHead, find_number_head
from lorry_components.training.setup.precision import choose_task_precision, detect_hardware
from lorry_components.training.setup.starting_adapter import StartingAdapter, begin_with, scale_head
from lorry_components.training.training_summary import ADAPTER_FOLDER, TrainingSummary, read_versions
from lorry_registry.errors import LorryError, TrainingError
from lorry_registry.files.digests import digest_document, shorten_digest
from lorry_registry.manifest import WEIGHTS_NAME, TrainingInputs
from lorry_registry.tasks.task_spec import TaskSpec
from lorry_registry.text.sizes import MIB, format_in

if TYPE_CHECKING:
    from lorry_components.training.callbacks import LogMetrics

_LOGGER = logging.getLogger(__name__)
# What a base that is unlike others may raise when its states are read.
_PROBE_ERRORS = (
    *(LorryError, ArithmeticError, AttributeError, LookupError),
    *(MemoryError, RuntimeError, TypeError, ValueError),
)


def finetune(
    task: ResolvedTask,
    data: Path,
    target: Path,
    *,
    checkpoints: Path,
    progress: Progress = ignore_progress,
    log_metrics: "LogMetrics | None" = None,
    place: CheckpointPlace | None = None,
    group: ProcessGroup = ALONE,
    features: FeatureCache | None = None,
    compares_probe: bool = True,
    start: StartingAdapter | None = None,
) -> TrainingSummary:
    """Train an adapter.

    Args:
        task: The task; its base is resolved, the source of its data is not.
        data: The folder that ``prepare_data`` wrote.
        target: Where to write ``adapter/``, ``row_fingerprints.json`` and ``training.json``.
            The summary comes last.
        checkpoints: A folder of this very training: when it holds a checkpoint, training continues from there
            and ends with the same weights as if it had never stopped.
        progress: Called with the number of steps that are done.
        log_metrics: Called with losses and validation metrics.
        place: Where each checkpoint is uploaded to; None: nowhere.
        group: The processes that train together; the first of them writes.
        features: Where features of the frozen base are kept; None: nowhere.
        compares_probe: Whether the adapter will be compared with a linear probe, which is fitted here, where
            the hardware is.
        start: The adapter that training begins with, if it fits; None: it begins with the base.

    Raises:
        BaseModelError: The base is not usable.
        InvalidDataError: Rows are too long for the task type on this base.
        InvalidTaskError: The method cannot work on this base.
        MissingExtraError: The method or the optimizer needs a library that is not installed.
        StoreError: The disk is full.
        TrainingError: The method does not fit the base, the optimizer does not work on this machine, the loss
            diverged, or the adapter is too large.
    """
    import_peft_alone()
    spec = task.spec
    card = load_card(data)
    parts = {part: load_part(data, part) for part in ("train", "validation", "test")}
    task_type, method = _check(task, group, rows=len(parts["train"]))
    fits_head = task_type.form.fits_head
    # The probe is not compared with itself.
    is_compared = compares_probe and method.trains_in_steps and _is_probe_wanted(spec, len(parts["train"]))
    # Progress is counted in steps, where there are any.
    follow = ignore_progress if method.trains_in_steps else progress
    is_start = fits_head and method.starts_as_base
    # All processes decide alike whether a method is left out.
    may_be_left_out = fits_head and method.can_be_left_out
    probe = None
    if is_start or may_be_left_out or (is_compared and group.is_first):
        probe = _fit_probe(
            task, task_type, method, parts, card.labels, features, follow, may_fail=not is_start
        )
    setup = set_up(spec, task.base, task_type, method, labels=card.labels, group=group)
    _check_size(spec, setup, target)
    refused = (
        begin_with(start, spec, setup, card.labels, [example.row for example in parts["test"]])
        if start is not None
        else ""
    )
    began = start if not refused else None
    if refused:
        _LOGGER.warning("%s begins with the base, since %s", spec.name, refused)
    # The test rows too: evaluation would refuse them only after training was paid for.
    setup.task_type.check_rows(
        setup.reader, [example.row for examples in parts.values() for example in examples]
    )
    head = find_number_head(
        setup.task_type, setup.model, setup.newly_initialized, [example.label for example in parts["train"]]
    )
    if began is not None:
        scale_head(head)
    fitted = None
    if fits_head and began is None:
        fitted = probe if is_start else fit_to_adapted(setup, parts, card.labels)
    if fitted is not None:
        (write_beginning if method.trains_in_steps else write_into_head)(setup, fitted, head)
    course = (
        _train(
            task,
            setup,
            parts,
            card.labels,
            head,
            checkpoints,
            progress,
            log_metrics,
            place,
            keeps_start=fitted is not None and not may_be_left_out,
        )
        if method.trains_in_steps
        else Course(steps=0, resumed_from=0, seconds=0.0, loss=probe.head.loss if probe else math.nan)
    )
    if not math.isfinite(course.loss):
        raise TrainingError(
            f"the loss became {course.loss}",
            where=spec.name,
            todo="lower train.learning_rate, or write precision: fp32",
        )
    if head is not None:
        head.fold()
    compared = (probe if may_be_left_out else fitted) if method.trains_in_steps else None
    start_folder = None if may_be_left_out else checkpoints / START
    given_up = (
        give_up_worse_end(
            setup, compared, parts["validation"], card.labels, spec.evaluate, start=start_folder
        )
        if compared is not None
        else ""
    )
    # Validation rows may have decided as well: which epoch is kept, or how the fitted head is regularised.
    chooses = spec.train.early_stopping is not None or fits_head
    fingerprints = collect_fingerprints(
        parts,
        setup.task_type.data_form,
        trained=("train", "validation") if chooses else ("train",),
        salt=card.data_digest,
    )
    if group.is_first:
        _write_adapter(spec, setup, target)
        save_fingerprints(fingerprints, target)
        _write_probe(probe if is_compared else None, target)
        _log_kept(
            task,
            setup,
            compared if given_up else None,
            parts,
            card.labels,
            course.steps,
            log_metrics,
        )
    seconds = course.seconds + (fitted.seconds if fitted is not None else 0.0)
    summary = TrainingSummary(
        base=setup.base.identity,
        inputs=TrainingInputs(
            source_digest=card.source_digest,
            data_digest=card.data_digest,
            recipe_digest=spec.recipe_digest,
            fingerprints_digest=fingerprints.digest,
            makeup=resolve_recipe(spec, start=began.adapter_id if began is not None else None),
        ),
        labels=card.labels,
        has_pair=spec.data.columns.text_pair is not None,
        parameters=count_without(setup.parameters) if given_up and may_be_left_out else setup.parameters,
        learning_rate=setup.learning_rate,
        device=setup.hardware.name,
        precision=setup.precision.name,
        examples=len(parts["train"]),
        steps=course.steps,
        resumed_from=course.resumed_from,
        seconds=seconds,
        examples_per_second=course.count_rows(spec.train.gradient_accumulation) / seconds if seconds else 0.0,
        loss=course.loss,
        libraries=read_versions(setup.task_type),
        batch_size=course.batch_size,
        epochs=course.epochs,
        head_learning_rate=setup.head_learning_rate if setup.newly_initialized else None,
        head_init=_name_head_init(setup, fitted, began),
        head=setup.task_type.find_recorded_pooling(),
        start_refused=refused,
        kept_start=given_up,
    )
    if group.is_first:
        summary.save(target)
    return summary


def _name_head_init(setup: Setup, fitted: LinearProbe | None, began: StartingAdapter | None) -> str:
    if not setup.newly_initialized:
        return ""
    if began is not None:
        return "champion"
    return "probe" if fitted is not None else "random"


def _check(task: ResolvedTask, group: ProcessGroup, *, rows: int) -> tuple[TaskType, Method]:
    check_batch_size(task.spec, group)
    check_base(task.spec, task.base.folder)
    return task.task_type.settle(task.base.folder, rows), task.build_method()


def _describe_start(task: ResolvedTask, setup: Setup, checkpoints: Path) -> str:
    """Return the first line of a training's log: what is trained, on what, and from where."""
    import torch

    from lorry_components.training.checkpoints.checkpoint_files import find_checkpoint

    checkpoint = find_checkpoint(checkpoints)
    threads = torch.get_num_threads()
    where = f"{setup.hardware.name} in {setup.precision.name}, {threads} thread{'' if threads == 1 else 's'}"
    start = f"going on from {checkpoint.name}" if checkpoint else "from the start"
    return f"{task.spec.name}: fine-tuning {task.spec.base.model} on {where}, {start}"


def _is_probe_wanted(spec: TaskSpec, rows: int) -> bool:
    wanted = spec.evaluate.linear_probe
    return wanted == "always" or (wanted == "auto" and rows <= MOST_ROWS)


def _fit_probe(
    task: ResolvedTask,
    task_type: TaskType,
    method: Method,
    parts: Mapping[str, Sequence[Example]],
    labels: Sequence[str] | None,
    features: FeatureCache | None,
    progress: Progress,
    *,
    may_fail: bool,
) -> LinearProbe | None:
    """Fit the linear probe, if there is one for the task type and the base; the base is then let go of."""
    precision = choose_task_precision(task.spec, detect_hardware())
    try:
        opened = open_features(task.base, task_type, method, features, precision=precision.name)
        return None if opened is None else fit_linear_probe(opened, parts, labels, progress=progress)
    except _PROBE_ERRORS as error:
        if not may_fail:
            raise
        # Families of bases differ in ways that no one knows: a comparison must not cost the training.
        _LOGGER.warning("%s is not compared with a linear probe: %s", task.spec.name, error)
        return None


def _train(
    task: ResolvedTask,
    setup: Setup,
    parts: Mapping[str, Sequence[Example]],
    labels: Sequence[str] | None,
    head: NumberHead | None,
    checkpoints: Path,
    progress: Progress,
    log_metrics: "LogMetrics | None",
    place: CheckpointPlace | None,
    *,
    keeps_start: bool,
) -> Course:
    from lorry_components.training.callbacks import ProgressCallback
    from lorry_components.training.checkpoints.checkpoint_uploads import CheckpointUploads

    spec, group = task.spec, setup.group
    log = log_metrics or (lambda _metrics, _step: None)
    trainer = build_trainer(
        spec,
        setup,
        train=parts["train"],
        validation=parts["validation"],
        head=head,
        labels=labels,
        checkpoints=checkpoints,
        callbacks=[ProgressCallback(progress, log, _list_peak_rates(setup))],
    )
    check_same_start(checkpoints, group)
    if group.is_first:
        _LOGGER.info("%s", _describe_start(task, setup, checkpoints))
    separate_random_numbers(spec.train.seed, group)
    keeps_best = spec.train.early_stopping is not None
    with contextlib.ExitStack() as stack:
        if place is not None and group.is_first:
            uploads = CheckpointUploads(place.open(), keeps_best=keeps_best)
            trainer.add_callback(stack.enter_context(uploads))
        return train_to_end(
            trainer,
            checkpoints,
            keeps_prefix=spec.train.cache_frozen_layers,
            keeps_best=keeps_best,
            keeps_start=keeps_start,
        )


def _list_peak_rates(setup: Setup) -> dict[str, float]:
    rates = {"learning_rate": setup.learning_rate}
    return rates | ({"head_learning_rate": setup.head_learning_rate} if setup.newly_initialized else {})


def _log_kept(
    task: ResolvedTask,
    setup: Setup,
    kept: LinearProbe | None,
    parts: Mapping[str, Sequence[Example]],
    labels: Sequence[str] | None,
    step: int,
    log_metrics: "LogMetrics | None",
) -> None:
    """Log the validation metrics of a probe that was kept in place of what was trained, if one was."""
    if kept is None or log_metrics is None:
        return
    asked, targets = task.spec.evaluate, [example.label for example in parts["validation"]]
    names = setup.task_type.choose_metrics(asked)
    found = setup.task_type.score_training(kept.answers, targets, labels, names, asked.positive) or {}
    log_metrics({f"validation/{name}": value for name, value in found.items()}, step)


def _check_size(spec: TaskSpec, setup: Setup, target: Path) -> None:
    """Save the untrained adapter and throw it away: an adapter that will be too large is refused now."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        _save_within_limit(spec, setup, Path(scratch))


def _write_adapter(spec: TaskSpec, setup: Setup, target: Path) -> None:
    folder = target / ADAPTER_FOLDER
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        partial = Path(scratch) / ADAPTER_FOLDER
        partial.mkdir()
        _save_within_limit(spec, setup, partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)


def _write_probe(probe: LinearProbe | None, target: Path) -> None:
    # One may be left of a training that ended here before.
    (target / PROBE_NAME).unlink(missing_ok=True)
    if probe is not None:
        probe.save(target)


def _save_within_limit(spec: TaskSpec, setup: Setup, folder: Path) -> None:
    setup.method.save(setup.model, folder, setup.base.identity)
    size = (folder / WEIGHTS_NAME).stat().st_size
    limit = spec.method.max_adapter_mib or setup.method.max_adapter_mib
    if limit is not None and size > limit * MIB:
        raise TrainingError(
            f"the adapter takes {format_in(size, 'MiB')}, above the limit of {limit:g} MiB",
            where=spec.name,
            todo="choose fewer targets or a lower rank, or raise method.max_adapter_mib",
        )


def name_checkpoints(
    task: ResolvedTask, data: Path, *, forced_by: str = "", start: StartingAdapter | None = None
) -> str:
    """Return the name of the folder in which this very training keeps its checkpoints.

    Another base, other rows or another recipe lead to another folder, so that no training continues from the
    checkpoint of a different one.

    Args:
        task: The task; its base is resolved.
        data: The folder that ``prepare_data`` wrote.
        start: The adapter that training is to begin with; None: the base.
        forced_by: A run that trains in any case continues from its own checkpoints only.

    Raises:
        BaseModelError: The base is not usable.
    """
    inputs = {
        "base": task.base.identity.fingerprint,
        "data": load_card(data).data_digest,
        "recipe": resolve_recipe(task.spec, start=start.adapter_id if start is not None else None).digest,
        **({"run": forced_by} if forced_by else {}),
    }
    return f"{task.spec.name}-{shorten_digest(digest_document(inputs), 16)}"
