"""``lorry retrain``: what is out of date is trained once, judged, and promoted or refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from lorry_pipelines.cli.kubeflow_options import add_kubeflow_options, find_access, override_kubeflow
from lorry_pipelines.cli.task_options import complete_tasks_or_files
from lorry_registry.cli.edge import (
    fail_after,
    format_examples,
    json_option,
    load_settings,
    open_index,
    print_json,
    print_warning,
)
from lorry_registry.cli.prose import print_line, print_prose
from lorry_registry.cli.tables import NOTHING, Column, print_table
from lorry_registry.cli.termination import raise_on_termination
from lorry_registry.errors import RunFailedError, TrackingError
from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.registry import Registry
from lorry_registry.text.sizes import format_range

if TYPE_CHECKING:
    from lorry_components.tasks.resolution import ResolvedTask
    from lorry_pipelines.retraining.inspecting import Inspections
    from lorry_pipelines.retraining.results import RetrainedTask, Retraining
    from lorry_pipelines.retraining.retrain_requests import Requests
    from lorry_pipelines.retraining.retraining import Retrainer, RetrainingPlan
    from lorry_registry.settings import Settings
    from lorry_registry.tasks.task_spec import TaskSpec

EXIT_LEFT = 21
"""The exit code where no task failed, and something is left for the next time."""

_PLAN_COLUMNS = (
    Column("Task"),
    Column("Why", wraps=True),
    Column("Memory", justify="right", rank=2),
    Column("Expected", justify="right"),
    Column("Cost", justify="right", rank=1),
    Column("Next"),
)
_COLUMNS = (
    Column("Task"),
    Column("Before"),
    Column("Trained"),
    Column("Champion"),
    Column("Outcome"),
    Column("Seconds", justify="right", rank=1),
    Column("Why", wraps=True),
)


@click.command(
    epilog=format_examples(
        "lorry retrain                                   all that is stale in tasks/",
        "lorry retrain --dry-run                         what it would do, and what that would take",
        "lorry retrain --changed-since origin/main       of these, what a branch has touched",
        "lorry retrain --time-limit 60 --max-tasks 10    the rest is left for the next time",
        "lorry retrain --target kubeflow --profile gpu.yaml",
    )
)
@click.argument("tasks", nargs=-1, metavar="[TASK]...", shell_complete=complete_tasks_or_files)
@click.option(
    "--changed-since", "reference", metavar="GITREF", help="Only tasks whose files changed since a commit."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done and what it would take; do nothing.")
@click.option(
    "--target",
    "place",
    type=click.Choice(["local", "kubeflow"]),
    default="local",
    show_default=True,
    help="Where it is trained.",
)
@click.option(
    "--time-limit",
    metavar="MINUTES",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop after so long; what is not done then is left for the next time.",
)
@click.option(
    "--max-tasks", "most", metavar="N", type=click.IntRange(min=1), help="Train no more than so many tasks."
)
@add_kubeflow_options
@json_option
def retrain_tasks(
    tasks: tuple[str, ...],
    reference: str | None,
    dry_run: bool,
    place: Literal["local", "kubeflow"],
    time_limit: float | None,
    most: int | None,
    as_json: bool,
    **kubeflow: Any,
) -> None:
    """Train what is out of date, once.

    The tasks that lorry stale calls stale are trained, each is judged beside its champion on the present test
    rows, and promoted or refused. A TASK is a file, a folder of files, or the name of a task in tasks/ or of
    NAME.yaml; without any, all files in tasks/ are meant. Of several that retrain one task at a time, on
    whichever machine, one does the work. What a retraining that was killed has left half done, the next one
    finishes. A tag lorry.retrain on a version in MLflow asks for its task: it is looked at even if
    --changed-since does not name it, and comes first within --time-limit and --max-tasks.

    Exit codes: 0 all done; 12 a task failed; 21 none failed, and something is left for the next time, since
    another process retrains it, or by --time-limit or --max-tasks; others as everywhere.
    """
    from lorry_components.process_setup import ease_garbage_collection, quiet_libraries
    from lorry_pipelines.retraining.retraining import Retrainer
    from lorry_pipelines.retraining.selection import choose_touched
    from lorry_pipelines.scheduling import load_tasks
    from lorry_pipelines.task_files import find_task_files

    ease_garbage_collection()
    quiet_libraries()
    click.get_current_context().with_resource(raise_on_termination())
    settings = load_settings()
    files = find_task_files(tasks, Path.cwd())
    specs = load_tasks(files, bases=settings.base_place)
    by_file = dict(zip(files, specs, strict=True))
    requests = _read_requests(settings, [spec.name for spec in specs])
    if reference is not None:
        touched = {spec.name for spec in choose_touched(by_file, reference)}
        specs = [spec for spec in specs if spec.name in touched or spec.name in requests]
    registry = Registry.open(settings)
    runner = _build_runner(
        place,
        settings,
        registry,
        {spec.name: path for path, spec in by_file.items()},
        quiet=as_json,
        **kubeflow,
    )
    retrainer = Retrainer(
        registry,
        runner,
        _Inspector(specs, settings, registry),
        lambda task: _finish_in_mlflow(task, settings, registry),
        time_limit=None if time_limit is None else time_limit * 60,
        most=most,
        first=requests,
    )
    plan = retrainer.plan(plans_memory=dry_run)
    if dry_run:
        _show_plan(retrainer, plan, as_json=as_json)
        fail_after(retrainer.inspections.problems)
        return
    retraining = retrainer.retrain(plan)
    _remove_requests(settings, requests, retraining)
    _hand_on(retraining, as_json=as_json)
    fail_after(retrainer.inspections.problems)
    _fail_with(retraining)


class _Inspector:
    """Compares tasks with their champions, each time with what is there then."""

    def __init__(self, specs: "Sequence[TaskSpec]", settings: "Settings", registry: Registry) -> None:
        from lorry_components.data.object_cache import ObjectCache

        self._specs = specs
        self._registry = registry
        self._digest = DigestCache(settings.digests).digest_file
        self._cache = ObjectCache(settings.cache / "images", limit=settings.cache_bytes)

    def __call__(self, names: Sequence[str] | None) -> "tuple[dict[str, ResolvedTask], Inspections]":
        from lorry_components.tasks.resolution import resolve_task
        from lorry_pipelines.retraining.inspecting import inspect_tasks

        wanted = [spec for spec in self._specs if names is None or spec.name in names]
        tasks = [resolve_task(spec, digest=self._digest) for spec in wanted]
        inspections = inspect_tasks(tasks, self._registry, cache=self._cache)
        return {task.spec.name: task for task in tasks}, inspections


def _build_runner(
    place: Literal["local", "kubeflow"],
    settings: "Settings",
    registry: Registry,
    files: dict[str, Path],
    *,
    quiet: bool,
    **kubeflow: Any,
) -> Any:
    from lorry_pipelines.cli.retrain_runners import ClusterRunner, LocalRunner

    if place == "local":
        return LocalRunner(settings, registry, files, quiet=quiet)
    from lorry_pipelines.cli.submit import SubmitJob, find_revision
    from lorry_pipelines.cluster.profile import load_profile

    settings = override_kubeflow(settings, **kubeflow)
    return ClusterRunner(
        SubmitJob(settings, find_access(settings), force=False, dry_run=False),
        registry,
        load_profile(settings.kubeflow.profile),
        revision=find_revision(next(iter(files.values()))),
        quiet=quiet,
    )


def _finish_in_mlflow(task: str, settings: "Settings", registry: Registry) -> Sequence[str]:
    from lorry_components.steps.register.mlflow_publication import reconcile_task

    if registry.ledger.read_state(task).head is None:
        return ()
    return reconcile_task(open_index(settings), registry, task)


def _read_requests(settings: "Settings", tasks: Sequence[str]) -> "Requests":
    from lorry_pipelines.retraining.retrain_requests import RETRAIN_TAG, read_requests

    try:
        return read_requests(open_index(settings), tasks)
    except TrackingError as error:
        print_warning(f"tags {RETRAIN_TAG} in MLflow are not read: {error.what}")
        return {}


def _remove_requests(settings: "Settings", requests: "Requests", retraining: "Retraining") -> None:
    from lorry_pipelines.retraining.retrain_requests import RETRAIN_TAG, remove_requests

    done = [task.task for task in retraining.tasks if task.outcome not in ("left", "failed")]
    try:
        remove_requests(open_index(settings), requests, done)
    except TrackingError as error:
        print_warning(f"tags {RETRAIN_TAG} in MLflow are not removed: {error.what}")


def _show_plan(retrainer: "Retrainer", plan: "RetrainingPlan", *, as_json: bool) -> None:
    from lorry_pipelines.retraining.inspecting import describe_inspection

    found = retrainer.inspections.found
    if as_json:
        print_json(
            [
                {
                    **describe_inspection(found[task]),
                    "expected_seconds": expected.seconds,
                    "known_from": expected.known_from or None,
                    "memory_bytes": expected.memory,
                    "expected_cost": expected.cost,
                    "highest_cost": expected.highest_cost,
                    "currency": expected.currency or None,
                    "left": plan.left.get(task),
                }
                for task, expected in plan.expected.items()
            ]
        )
        return
    if not plan.expected and not plan.left:
        click.echo(_say_idle(len(found)))
        return
    if not plan.expected:
        _print_left(plan.left)
        return
    print_table(_PLAN_COLUMNS, [_format_plan(retrainer, plan, task) for task in plan.expected])
    for task, expected in plan.expected.items():
        if expected.known_from:
            print_line(f"{task}: expected as {expected.known_from} took, on the same kind of machine")
    _print_left(plan.left)


def _format_plan(retrainer: "Retrainer", plan: "RetrainingPlan", task: str) -> list[str]:
    from lorry_pipelines.retraining.inspecting import tell_changes

    expected, inspection = plan.expected[task], retrainer.inspections.found[task]
    costs = [cost for cost in (expected.cost, expected.highest_cost) if cost is not None]
    at_most = "" if expected.cost is not None else "at most "
    return [
        task,
        "; ".join(tell_changes(inspection)) or inspection.reason,
        f"{format_range(*expected.memory)} GiB" if expected.memory is not None else NOTHING,
        f"{expected.seconds / 60:.1f} min" if expected.seconds is not None else "not known",
        f"{at_most}{costs[0]:,.2f} {expected.currency}" if costs else NOTHING,
        "left" if task in plan.left else "to train" if inspection.staleness.is_stale else "to judge",
    ]


def _hand_on(retraining: "Retraining", *, as_json: bool) -> None:
    """Tell what a retraining did: the one place that everything about it passes."""
    from lorry_pipelines.cli.run import tell_start
    from lorry_pipelines.retraining.results import describe_retraining

    if as_json:
        print_json(describe_retraining(retraining))
        return
    shown = [task for task in retraining.tasks if task.outcome != "fresh"]
    if not shown:
        click.echo(_say_idle(len(retraining.tasks)))
        return
    click.echo()
    print_table(_COLUMNS, [_format_task(task) for task in shown])
    for task in shown:
        if task.outcome not in ("left", "failed") and task.decision:
            print_prose(f"\n{task.task}: {task.decision}")
        warning = task.report.details.get("register", {}).get("warning") if task.report else None
        if warning:
            print_warning(f"{task.task}: {warning}")
        if task.report is not None:
            tell_start(task.report)
    _print_left({task.task: task.decision for task in retraining.left})
    if retraining.urls:
        print_line(f"\nIn Kubeflow: {', '.join(retraining.urls)}")
    fresh = len(retraining.tasks) - len(shown)
    print_line(f"\n{_count(len(shown))} in {retraining.seconds:.0f} s, {fresh} more had nothing to be done")


def _format_task(task: "RetrainedTask") -> list[str]:
    return [
        task.task,
        *(f"v{version}" if version is not None else NOTHING for version in _list_versions(task)),
        task.outcome,
        f"{task.seconds:.0f}" if task.seconds is not None else NOTHING,
        "; ".join(task.reasons),
    ]


def _list_versions(task: "RetrainedTask") -> tuple[int | None, int | None, int | None]:
    return task.old_version, task.new_version, task.champion


def _print_left(left: "dict[str, str] | Any") -> None:
    if left:
        click.echo("\nLeft for the next time:")
    for task, why in left.items():
        print_prose(f"  {task}: {why}")


def _say_idle(tasks: int) -> str:
    return (
        f"nothing to do: {_count(tasks)}, none of them stale" if tasks else "nothing to do: no task changed"
    )


def _count(tasks: int) -> str:
    return f"{tasks} task{'' if tasks == 1 else 's'}"


def _fail_with(retraining: "Retraining") -> None:
    """End with a code that says whether all is well.

    Raises:
        RunFailedError: A task failed.
    """
    if retraining.failed:
        raise RunFailedError(
            "\n".join(
                f"{task.task} failed in {task.report.step if task.report else 'it'}: {task.decision}"
                for task in retraining.failed
            ),
            todo="correct this and retrain again: what is done is not repeated",
        )
    if retraining.postponed:
        click.get_current_context().exit(EXIT_LEFT)
