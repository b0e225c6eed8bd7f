"""The work of a run, decided before anything is spent."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorry_components.data.sources.local import measure_source
from lorry_components.memory import check_fits, is_surely_small, plan_task
from lorry_components.models.configuration import read_configuration
from lorry_components.tasks.definition import find_task_type, load_task_file
from lorry_components.tasks.resolution import ResolvedTask
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
from lorry_registry.stores.concurrency import map_concurrent
from lorry_registry.tasks.base_places import BasePlace
from lorry_registry.tasks.task_loading import place_base
from lorry_registry.tasks.task_spec import TaskSpec

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task of a run.

    Attributes:
        task: The task. What was resolved to assess it is not resolved again.
        staleness: Whether it needs training.
    """

    task: ResolvedTask
    staleness: Staleness

    @property
    def spec(self) -> TaskSpec:
        """The task's specification."""
        return self.task.spec


def load_tasks(
    paths: Sequence[Path], overrides: Sequence[str] = (), *, bases: BasePlace | None = None
) -> list[TaskSpec]:
    """Read task files; the faults of all of them are reported together.

    Args:
        paths: The files.
        overrides: Settings of the form FIELD=VALUE, for all of them.
        bases: Where this machine has bases with a logical name; None: nowhere.

    Raises:
        InvalidTaskError: A file has faults.
        UsageError: Two files name the same task.
    """
    specs: list[TaskSpec] = []
    errors: list[InvalidTaskError] = []
    for path in paths:
        try:
            specs.append(place_base(load_task_file(path, overrides), bases or BasePlace()))
        except InvalidTaskError as error:
            errors.append(error)
    raise_together(errors, "task files")
    names = [spec.name for spec in specs]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UsageError(
            f"more than one file describes task {', '.join(repeated)}", todo="give each task once"
        )
    return specs


def plan_tasks(tasks: Sequence[ResolvedTask], registry: Registry, *, force: bool) -> list[PlannedTask]:
    """Decide for each task whether it needs training, and why.

    An error of a single task is left for its own first step to report: it does not stop the others.
    """

    def plan(task: ResolvedTask) -> PlannedTask:
        return PlannedTask(task, _assess(task, registry, force=force))

    # The first one alone: what many tasks share, such as the base, is then hashed once.
    return [*map(plan, tasks[:1]), *map_concurrent(plan, tasks[1:], registry.store.concurrency)]


def refuse_what_does_not_fit(specs: Sequence[TaskSpec]) -> None:
    """Compare what tasks will take with the resources that they ask for, before anything is spent.

    A plan needs the specification only, neither base nor data. A task that cannot be planned is not refused:
    the error is for its own first step to report.

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
        misfits = find_task_type(spec).match_family(
            text=lambda _: _check_text_fits(spec), diffusion=lambda _: _check_pipeline_fits(spec)
        )
    except Exception as error:  # noqa: BLE001 - one task's failure is none of the others'
        _LOGGER.info("%s is not planned: %s", spec.name, error)
        return []
    return [fault.move_into(spec.name) for fault in misfits]


def _check_text_fits(spec: TaskSpec) -> Iterable[Fault]:
    base = read_configuration(spec.base, may_download=False)
    return () if is_surely_small(spec, base) else check_fits(spec, plan_task(spec, base=base))


def _check_pipeline_fits(spec: TaskSpec) -> Iterable[Fault]:
    # Of one on a hub the configurations would have to be downloaded.
    return check_fits(spec, plan_task(spec)) if spec.base.is_here or spec.base.is_named else ()


def order_by_cost(specs: Sequence[TaskSpec]) -> list[TaskSpec]:
    """Put the tasks that will take longest first, so that none of them runs alone at the end."""
    return sorted(specs, key=_estimate_cost, reverse=True)


def _assess(task: ResolvedTask, registry: Registry, *, force: bool) -> Staleness:
    if force:
        return Staleness(is_stale=True, reason="training is forced")
    try:
        return assess_staleness(task, registry)
    except LorryError as error:
        # The first step will fail for the same reason, and report it in full.
        reason = error.faults[0].advice if isinstance(error, InvalidDataError) else error.what
        return Staleness(is_stale=True, reason=reason)


def _estimate_cost(spec: TaskSpec) -> float:
    if spec.train.steps is not None:
        return float(spec.train.steps * spec.train.batch_size)
    return measure_source(spec.data) * (spec.train.epochs or 1.0)
