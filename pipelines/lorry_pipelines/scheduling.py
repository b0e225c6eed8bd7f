"""What a run would do, before anything is spent."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorry_components.memory import check_fits, is_surely_small, plan_task
from lorry_components.models.configuration import read_configuration
from lorry_components.tasks.checks import find_task_type
from lorry_components.tasks.definition import load_task_file
from lorry_components.tasks.staleness import Staleness, assess_staleness
from lorry_registry.errors import (
    Fault,
    InvalidDataError,
    InvalidTaskError,
    LorryError,
    UsageError,
    raise_together,
)
from lorry_registry.registry import Registry
from lorry_registry.task_spec import TaskSpec

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task, and whether it needs training."""

    spec: TaskSpec
    staleness: Staleness


def load_tasks(paths: Sequence[Path], overrides: Sequence[str] = ()) -> list[TaskSpec]:
    """Read task files; the faults of all of them are told together.

    Raises:
        InvalidTaskError: A file has faults.
        UsageError: Two files name the same task.
    """
    specs: list[TaskSpec] = []
    errors: list[InvalidTaskError] = []
    for path in paths:
        try:
            specs.append(load_task_file(path, overrides))
        except InvalidTaskError as error:
            errors.append(error)
    raise_together(errors, "task files")
    names = [spec.name for spec in specs]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UsageError(f"more than one file is of task {', '.join(repeated)}", todo="give each task once")
    return specs


def plan_tasks(specs: Sequence[TaskSpec], registry: Registry, *, force: bool) -> list[PlannedTask]:
    """Say of each task whether it needs training, and why.

    What is wrong with a single task is left for its own first step to report: it does not stop the others.
    """
    return [PlannedTask(spec, _assess(spec, registry, force=force)) for spec in specs]


def refuse_what_does_not_fit(specs: Sequence[TaskSpec]) -> None:
    """Compare what tasks will take with the resources that they ask for, before anything is spent.

    A task that cannot be planned is not refused: what is wrong with it is for its own first step to report.

    Raises:
        InvalidTaskError: A task will not fit even if all goes well; all such tasks are listed.
    """
    faults = [fault for spec in specs for fault in _list_misfits(spec)]
    if faults:
        raise InvalidTaskError(
            "resources",
            faults,
            todo="lorry plan says what each part takes and what would take less; ask for more, or take less, "
            "or run it all the same with --force",
        )


def _list_misfits(spec: TaskSpec) -> list[Fault]:
    try:
        if find_task_type(spec).reads_images:
            is_here = spec.base.is_package or spec.base.is_folder
            found = check_fits(spec, plan_task(spec)) if is_here else ()
            return [fault.move_into(spec.name) for fault in found]
        base = read_configuration(spec.base, may_download=False)
        if is_surely_small(spec, base):
            return []
        found = check_fits(spec, plan_task(spec, base=base))
    except Exception as error:  # noqa: BLE001 - one task's failure is none of the others'
        _LOGGER.info("%s is not planned: %s", spec.name, error)
        return []
    return [fault.move_into(spec.name) for fault in found]


def order_by_cost(specs: Sequence[TaskSpec]) -> list[TaskSpec]:
    """Put the tasks that will take longest first, so that none of them is left alone at the end."""
    return sorted(specs, key=_estimate_cost, reverse=True)


def _assess(spec: TaskSpec, registry: Registry, *, force: bool) -> Staleness:
    if force:
        return Staleness(is_stale=True, reason="training was asked for in any case")
    try:
        return assess_staleness(spec, registry)
    except LorryError as error:
        # The first step will fail over it, and tell all of it.
        told = error.faults[0].advice if isinstance(error, InvalidDataError) else error.what
        return Staleness(is_stale=True, reason=told)


def _estimate_cost(spec: TaskSpec) -> float:
    if spec.train.steps is not None:
        return float(spec.train.steps * spec.train.batch_size)
    source = Path(spec.data.source)
    try:
        paths = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
        size = sum(path.stat().st_size for path in paths) if spec.data.is_local else 0
    except OSError:
        size = 0
    return size * (spec.train.epochs or 1.0)
