"""``lorry run``: train, judge and register the adapters of tasks."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lorry_pipelines.cli.task_options import files_argument, overrides_option
from lorry_registry.cli.edge import (
    fail_after,
    format_examples,
    json_option,
    load_settings,
    print_json,
    print_warning,
    read_environment,
)
from lorry_registry.cli.prose import print_line, print_prose
from lorry_registry.errors import LorryError, RunFailedError
from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.registry import Registry

if TYPE_CHECKING:
    import subprocess

    from lorry_components.steps.report.step import TaskReport
    from lorry_pipelines.local.launch import RunFolder
    from lorry_pipelines.scheduling import PlannedTask
    from lorry_registry.mlflow.page_addresses import TrainingsPage
    from lorry_registry.records.provenance import SourceRevision
    from lorry_registry.settings import Settings

# Larger data take minutes to read; the first step does that, and says the same.
_REVIEWED_BYTES = 64 << 20


@click.command(
    epilog=format_examples(
        "lorry run tasks/*.yaml",
        "lorry run reviews.yaml --set method.r=16 --set train.seed=1",
        "lorry run reviews.yaml --force           train even if it is up to date",
        "lorry run tasks/*.yaml --runner docker   each step in a container",
    )
)
@files_argument
@overrides_option
@click.option(
    "--runner",
    type=click.Choice(["local", "subprocess", "docker"]),
    default="local",
    show_default=True,
    help="Where steps run: in processes of this environment (local); or Kubeflow's local runner runs the "
    "compiled graph, in processes (subprocess) or in containers of LORRY_IMAGE (docker).",
)
@click.option(
    "--force",
    is_flag=True,
    help="Also train tasks that are up to date, and tasks whose plan does not fit their resources.",
)
@json_option
def run_tasks(
    files: tuple[Path, ...], overrides: tuple[str, ...], runner: str, force: bool, as_json: bool
) -> None:
    """Train, judge and register the adapters of tasks.

    A task is trained if its data, its base or its recipe has changed since its last adapter. A task that
    fails does not stop the others: it is reported at the end, and the exit code is 12. If no task has data
    that can be used, nothing is started. An interrupted run continues from its last checkpoint when it is
    started again.
    """
    from lorry_components.process_setup import ease_garbage_collection, quiet_libraries
    from lorry_components.tasks.resolution import resolve_task
    from lorry_pipelines.scheduling import load_tasks, plan_tasks

    ease_garbage_collection()
    quiet_libraries()
    started = time.monotonic()
    settings = load_settings()
    specs = load_tasks(files, overrides, bases=settings.base_place)
    registry = Registry.open(settings)
    digest = DigestCache(settings.digests).digest_file
    planned = plan_tasks([resolve_task(spec, digest=digest) for spec in specs], registry, force=force)
    stale = [plan for plan in planned if plan.staleness.has_work]
    reports: dict[str, TaskReport] = {}
    folder = None
    image_digest = ""
    if stale:
        # It imports the libraries of the steps while this process checks the tasks.
        with open_run_processes(settings, len(stale), runner=runner) as step_runner:
            check_tasks(stale, settings, force=force)
            if runner == "docker":
                from lorry_pipelines.local.containers import check_engine, find_image_digest
                from lorry_pipelines.step_images import choose_images

                check_engine([image.name for image in choose_images(settings)])
                image_digest = find_image_digest(settings.image)
            from lorry_pipelines.local.source_revision import find_sources

            tasks = {plan.spec.name for plan in stale}
            paths = {spec.name: path for spec, path in zip(specs, files, strict=True) if spec.name in tasks}
            folder, reports = run_stale(
                stale,
                settings,
                find_sources(paths),
                image_digest,
                runner=runner,
                force=force,
                quiet=as_json,
                step_runner=step_runner,
            )
    from lorry_pipelines.cli.run_summary import describe_tasks, print_summary

    rows = describe_tasks(planned, reports, registry)
    if as_json:
        print_json(rows)
    else:
        print_summary(
            rows,
            seconds=time.monotonic() - started,
            tracking_uri=settings.tracking_uri,
            # Importing MLflow takes longer than all else that a run with nothing to do does.
            find_trainings=functools.partial(_find_trainings, settings.tracking_uri) if stale else None,
        )
    if folder is not None:
        _finish(list(reports.values()), folder)


def check_tasks(stale: Sequence["PlannedTask"], settings: "Settings", *, force: bool) -> None:
    """Refuse what cannot work, before anything is started.

    Raises:
        LorryError: It cannot: a base, all data, the resources, the store or MLflow.
    """
    from lorry_components.tasks.base_checks import check_bases
    from lorry_components.tasks.passed_checks import PassedChecks
    from lorry_pipelines.local.launch import check_places
    from lorry_pipelines.scheduling import refuse_what_does_not_fit

    specs = [plan.spec for plan in stale]
    check_bases(specs, PassedChecks(settings.passed_checks))
    _review_data(stale)
    if not force:
        refuse_what_does_not_fit(specs)
    check_places(settings, [spec.name for spec in specs])


def _review_data(stale: Sequence["PlannedTask"]) -> None:
    """Say now what the first step would say of data; exit if there is no task whose data can be used."""
    from lorry_pipelines.data_review import review_data

    _, problems = review_data([plan.task for plan in stale], max_bytes=_REVIEWED_BYTES)
    if len(problems) == len(stale):
        fail_after(problems)
    for name, problem in problems.items():
        print_warning(f"{name} will fail, the other tasks will not: {problem}")


@contextlib.contextmanager
def open_run_processes(
    settings: "Settings", tasks: int, *, runner: str
) -> "Iterator[subprocess.Popen[bytes] | None]":
    """Start the process that runs steps; None where Kubeflow's local runner does."""
    from lorry_pipelines.local.launch import open_step_runner

    if runner != "local":
        yield None
        return
    with open_step_runner(settings, read_environment(), tasks) as process:
        yield process


def _find_trainings(tracking_uri: str, task: str) -> "TrainingsPage | None":
    from lorry_registry.mlflow.index import MlflowIndex
    from lorry_registry.mlflow.network import BRIEF

    index = MlflowIndex(tracking_uri, limits=BRIEF)
    # The summary is complete without it: an MLflow that is gone was reported already.
    with contextlib.suppress(LorryError):
        return index.find_trainings(task) if index.has_database() else None
    return None


def run_stale(
    stale: Sequence["PlannedTask"],
    settings: "Settings",
    sources: Mapping[str, "SourceRevision"],
    image_digest: str,
    *,
    runner: str,
    force: bool,
    quiet: bool,
    step_runner: "subprocess.Popen[bytes] | None",
    prepare: "Callable[[RunFolder], None]" = lambda _: None,
    look: Callable[[], None] = lambda: None,
) -> tuple["RunFolder", dict[str, "TaskReport"]]:
    """Run tasks on this machine, and show how far they are.

    Args:
        stale: The tasks, in the order in which they are reported.
        settings: Where things are.
        sources: The commits that the tasks' files were read at.
        image_digest: The digest of the image of steps in containers.
        runner: ``local``, ``subprocess`` or ``docker``.
        force: Whether tasks that are up to date are trained as well.
        quiet: Whether nothing is shown.
        step_runner: The process that runs steps; None: Kubeflow's local runner does.
        prepare: Called with the run's files before its first step.
        look: Called again and again during the run; what it raises ends the run.

    Raises:
        ConflictError: Another run of one of them is going on here, or has this run's id.
        KeyboardInterrupt: The run was interrupted; its processes are ended first.
        StoreError: A file of the run cannot be written.
    """
    from lorry_components.steps.runtime.outcomes import RunRecord
    from lorry_pipelines.local.display import Watcher, open_display, read_progress_file
    from lorry_pipelines.local.launch import RunFolder, report_disk, run_pipeline
    from lorry_pipelines.local.locking import hold_tasks
    from lorry_pipelines.scheduling import order_by_cost
    from lorry_registry.stores import open_store

    names = [plan.spec.name for plan in stale]
    with report_disk(settings.home), hold_tasks(settings.locks, names):
        folder = RunFolder.create(settings.runs)
        store = open_store(settings.store, settings.s3)
        RunRecord(store, folder.run).claim()
        prepare(folder)
        if not quiet:
            for plan in stale:
                print_prose(f"{plan.spec.name}: {plan.staleness.reason}", err=True)
            print_line(f"log: {folder.log}", err=True)
        try:
            with open_display(names, quiet=quiet) as shown:
                watcher = Watcher(
                    names,
                    RunRecord(store, folder.run),
                    functools.partial(read_progress_file, folder.progress),
                    shown,
                )
                report = run_pipeline(
                    order_by_cost([plan.spec for plan in stale]),
                    folder,
                    settings=settings,
                    runner=runner,
                    force=force,
                    environment=read_environment(),
                    watch=_join(watcher, look),
                    sources=sources,
                    image_digest=image_digest,
                    step_runner=step_runner,
                )
        except KeyboardInterrupt:
            _explain_interruption(names, settings, folder, force=force)
            raise
        reports = {task.task: task for task in report.tasks}
        # In the order in which the tasks were given, not in which they were started.
        return folder, {name: reports[name] for name in names}


def _join(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        first()
        second()

    return call


def _explain_interruption(
    names: Sequence[str], settings: "Settings", folder: "RunFolder", *, force: bool
) -> None:
    from lorry_components.steps.report.step import report_run
    from lorry_components.steps.runtime.outcomes import STEPS, RunRecord
    from lorry_registry.stores import open_store

    store = open_store(settings.store, settings.s3)
    for task in report_run(RunRecord(store, folder.run), names, store).failed:
        if task.step in task.details:
            state = f"failed in {task.step}: {task.reason}"
        elif folder.has_started(task.task):
            state = f"interrupted in {task.step}"
        else:
            state = "not started yet"
        print_prose(f"{task.task}: {state}", err=True)
        if task.step == STEPS[-1]:
            print_line(f"  if MLflow lacks its version afterwards: lorry reconcile {task.task}", err=True)
    if force:
        click.echo("a forced run always trains from the start: the same command begins anew", err=True)
    else:
        click.echo("checkpoints are kept: the same command continues from there", err=True)


def tell_start(report: "TaskReport") -> None:
    """Say why a task did not begin with its champion, if it asks for that, or ended where it began."""
    details = report.details.get("finetune", {})
    if refused := details.get("start_refused"):
        print_line(f"note: {report.task} began with the base: {refused}", err=True)
    if kept := details.get("kept_start"):
        print_prose(
            f"note: {report.task}: training did not improve on the linear head; kept it: {kept}. "
            "Consider method: {name: probe}, which takes seconds",
            err=True,
        )


def _finish(reports: "Sequence[TaskReport]", folder: "RunFolder") -> None:
    """Report warnings and failures, and exit with a code that says whether all is well.

    Raises:
        RunFailedError: A task failed.
    """
    for report in reports:
        warning = report.details.get("register", {}).get("warning")
        if warning:
            print_warning(f"{report.task}: {warning}")
        tell_start(report)
    failed = [report for report in reports if report.status == "failed"]
    if not failed:
        return
    raise RunFailedError(
        "\n".join(f"{report.task} failed in {report.step}: {report.reason}" for report in failed),
        todo="correct this and run the same command again: finished tasks are not repeated\n"
        f"  -> the output of the steps is in {folder.log}",
    )
