"""``lorry submit``: runs on a cluster, started once, followed to their ends."""

import dataclasses
import functools
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from lorry_pipelines.cli.kubeflow_options import (
    add_kubeflow_options,
    check_cron,
    find_access,
    override_kubeflow,
)
from lorry_pipelines.cli.task_options import files_argument, overrides_option
from lorry_pipelines.retraining.time_limit import TimeLimitError
from lorry_registry.cli.edge import (
    fail_after,
    format_examples,
    json_option,
    load_settings,
    print_json,
    print_warning,
)
from lorry_registry.cli.prose import print_line
from lorry_registry.errors import Fault, InvalidTaskError, LorryError, RunFailedError, UsageError
from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.registry import Registry

if TYPE_CHECKING:
    from lorry_components.steps.report.step import TaskReport
    from lorry_components.tasks.resolution import ResolvedTask
    from lorry_pipelines.cluster.kubeflow import Kubeflow, Run
    from lorry_pipelines.cluster.kubeflow_access import KubeflowAccess
    from lorry_pipelines.cluster.profile import ClusterProfile
    from lorry_pipelines.cluster.started_runs import StartedRun
    from lorry_pipelines.cluster.submission import Submission
    from lorry_pipelines.scheduling import PlannedTask
    from lorry_registry.settings import Settings

# A heartbeat is written as often.
_LOOK_SECONDS = 10.0


@click.command(
    epilog=format_examples(
        "lorry submit tasks/*.yaml --profile cluster.yaml --wait",
        "lorry submit reviews.yaml --dry-run            what it would do",
        "lorry submit tasks/*.yaml --recurring '0 0 3 * * *'   each night at three",
    )
)
@files_argument
@overrides_option
@add_kubeflow_options
@click.option("--wait", is_flag=True, help="Follow the run to its end, and end with its table and exit code.")
@click.option("--force", is_flag=True, help="Also train tasks that are up to date.")
@click.option(
    "--recurring",
    "cron",
    metavar="CRON",
    help="Start a run again and again: six fields, the first of them seconds.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@json_option
def submit_tasks(
    files: tuple[Path, ...],
    overrides: tuple[str, ...],
    wait: bool,
    force: bool,
    cron: str | None,
    dry_run: bool,
    as_json: bool,
    **kubeflow: Any,
) -> None:
    """Train, judge and register the adapters of tasks on a Kubeflow cluster.

    The tasks that are stale are compiled and started as runs of at most as many tasks as the profile says
    (tasks_per_run), unless a run with the same work is waiting, running or done: that one is shown, and
    followed with --wait. Data files of this machine are checked as by lorry validate, and copied into the
    store by their digest.

    Who asks is read from LORRY_KUBEFLOW_TOKEN, LORRY_KUBEFLOW_COOKIE, or a pod's service account.
    """
    from lorry_components.process_setup import ease_garbage_collection, quiet_libraries
    from lorry_pipelines.cluster.kubeflow_access import KubeflowAccess
    from lorry_pipelines.cluster.profile import load_profile
    from lorry_pipelines.scheduling import load_tasks

    ease_garbage_collection()
    quiet_libraries()
    if cron is not None:
        check_cron(cron, wait=wait)
    settings = override_kubeflow(load_settings(), **kubeflow)
    missing: list[Fault] = []
    try:
        access = find_access(settings)
    except UsageError as error:
        if not dry_run:
            raise
        # A dry run asks nothing.
        access = KubeflowAccess(host="")
        missing.append(Fault(error.where, error.what, error.todo))
    profile = load_profile(settings.kubeflow.profile)
    specs = load_tasks(files, overrides, bases=settings.base_place)
    job = SubmitJob(settings, access, force=force, dry_run=dry_run, missing=missing)
    tasks = job.move_data(specs, profile, is_recurring=cron is not None)
    if cron is not None:
        shown = job.schedule(tasks, profile, cron, revision=find_revision(files[0]))
        print_json(shown) if as_json else _print_values(shown)
    else:
        planned = job.plan(tasks)
        job.submit(planned, profile, wait=wait, as_json=as_json, revision=find_revision(files[0]))
    if missing:
        raise InvalidTaskError("for a cluster", missing, todo="correct these; nothing was done so far")


class SubmitJob:
    """One call of the command, with what all its parts need."""

    def __init__(
        self,
        settings: "Settings",
        access: "KubeflowAccess",
        *,
        force: bool,
        dry_run: bool,
        missing: list[Fault] | None = None,
    ) -> None:
        self._settings = settings
        self._access = access
        self._experiment = settings.kubeflow.experiment
        self._force = force
        self._dry_run = dry_run
        # What a dry run lacks; it goes on with what is known.
        self._missing = missing if missing is not None else []
        self._registry = Registry.open(settings)
        # Tasks whose data a dry run did not copy: nothing more can be known of them.
        self._unsent: set[str] = set()

    def move_data(self, specs: Sequence[Any], profile: Any, *, is_recurring: bool) -> "list[ResolvedTask]":
        """Return the tasks with their data where pods can read them; local files are copied there."""
        from lorry_components.tasks.resolution import resolve_task
        from lorry_pipelines.cluster.data_upload import list_missing, plan_upload
        from lorry_pipelines.cluster.reachability import check_places, check_reachable

        self._check(lambda: check_places(self._settings, profile))
        local = [spec.name for spec in specs if spec.data.is_local]
        if is_recurring and local:
            raise UsageError(
                f"the data of {', '.join(local)} are on this machine: every run would read the same copy",
                where="--recurring",
                todo="keep the data on S3, where they can change, and write s3://BUCKET/KEY",
            )
        digest = DigestCache(self._settings.digests).digest_file
        resolved = [resolve_task(spec, digest=digest) for spec in specs]
        _check_rows([task for task in resolved if task.spec.data.is_local])
        store = self._registry.store
        uploads = [plan_upload(task, store) for task in resolved]
        # Where the data go is not known where the store is none that pods reach.
        reached = [upload.spec for upload in uploads if not upload.spec.data.is_local]
        self._check(lambda: check_reachable(reached, self._settings, profile))
        missing = list_missing(uploads, store)
        has_store = len(reached) == len(uploads)
        for path, key in missing:
            place = store.locate(key) if has_store else "the store"
            print_line(f"{'would copy' if self._dry_run else 'copying'} {path} to {place}", err=True)
            if not self._dry_run:
                store.upload(key, path)
        if self._dry_run:
            self._unsent = {upload.spec.name for upload in uploads if set(upload.files) & set(missing)}
        return [resolve_task(upload.spec, digest=digest) for upload in uploads]

    def _check(self, check: Callable[[], None]) -> None:
        try:
            check()
        except InvalidTaskError as error:
            if not self._dry_run:
                raise
            self._missing += [fault for fault in error.faults if fault not in self._missing]

    def plan(self, tasks: "Sequence[ResolvedTask]") -> "list[PlannedTask]":
        """Decide which tasks are stale, and refuse those that would not fit what they ask for."""
        from lorry_components.tasks.staleness import Staleness
        from lorry_pipelines.scheduling import PlannedTask, plan_tasks, refuse_what_does_not_fit

        known = iter(
            plan_tasks(
                [task for task in tasks if task.spec.name not in self._unsent],
                self._registry,
                force=self._force,
            )
        )
        new = Staleness(is_stale=True, reason="its data are not in the store yet")
        planned = [
            PlannedTask(task, new) if task.spec.name in self._unsent else next(known) for task in tasks
        ]
        if not self._force:
            refuse_what_does_not_fit([plan.spec for plan in planned if plan.staleness.has_work])
        return planned

    def submit(
        self,
        planned: "Sequence[PlannedTask]",
        profile: Any,
        *,
        wait: bool,
        as_json: bool,
        revision: str,
    ) -> None:
        """Start the runs of the stale tasks once, and show or follow them."""
        started = time.monotonic()
        stale = [plan for plan in planned if plan.staleness.has_work]
        if not stale:
            self._finish(planned, {}, (), as_json=as_json, seconds=time.monotonic() - started)
            return
        tasks = [plan.task for plan in stale]
        if self._dry_run:
            shown = self._describe(tasks, planned, profile, revision=revision)
            self._show_plan(shown, [plan.spec for plan in stale], profile, as_json=as_json)
            return
        kubeflow, runs = self._start(tasks, profile, revision=revision, aside=as_json or wait)
        if not wait:
            if as_json:
                print_json({"runs": [_describe_run(one, kubeflow) for one in runs]})
            return
        runs, reports = self._follow(kubeflow, runs, quiet=as_json)
        links = {one.run.id: kubeflow.link_run(one.run.id) for one in runs}
        seconds = time.monotonic() - started
        self._finish(planned, reports, runs, as_json=as_json, seconds=seconds, links=links)
        _fail_with(runs, reports, links)

    def follow_to_end(
        self,
        tasks: "Sequence[ResolvedTask]",
        profile: "ClusterProfile",
        *,
        revision: str,
        quiet: bool,
        prepare: Callable[[str], None],
        look: Callable[[], None],
    ) -> "tuple[list[StartedRun], dict[str, TaskReport], list[str]]":
        """Start the runs of tasks once, follow them to their ends; return them, their reports and pages.

        Args:
            tasks: The tasks, with data that pods can reach.
            profile: How steps are placed.
            revision: The commit of the task files.
            quiet: Whether nothing is shown.
            prepare: Called with each run's id before it is followed.
            look: Called again and again; the runs are ended if it raises.

        Raises:
            ClusterError: Kubeflow cannot be reached, or refuses.
        """
        kubeflow, runs = self._start(tasks, profile, revision=revision, aside=True)
        for one in runs:
            prepare(one.run.id)
        try:
            runs, reports = self._follow(kubeflow, runs, quiet=quiet, look=look)
        except TimeLimitError:
            for one in runs:
                kubeflow.terminate_run(one.run.id)
            raise
        return runs, reports, [kubeflow.link_run(one.run.id) for one in runs]

    def _show_plan(self, shown: dict[str, Any], specs: Sequence[Any], profile: Any, *, as_json: bool) -> None:
        from lorry_pipelines.cli.costs_table import describe_costs, print_costs
        from lorry_pipelines.cluster.costs import estimate_costs

        costs = estimate_costs(specs, profile, self._registry)
        if as_json:
            print_json(shown | {"costs": describe_costs(costs, profile.prices)})
            return
        _print_values(shown)
        print_costs(costs, profile.prices)

    def schedule(
        self, tasks: "Sequence[ResolvedTask]", profile: Any, cron: str, *, revision: str
    ) -> dict[str, Any]:
        """Make the recurring run of these tasks; each of its runs trains what is stale then.

        More tasks than one run takes become several recurring runs: NAME, NAME-2, ...
        """
        from lorry_pipelines.cluster.kubeflow import Kubeflow
        from lorry_pipelines.cluster.started_runs import schedule_runs
        from lorry_pipelines.compilation import publish_tasks

        submissions = self._build(tasks, profile, revision=revision)
        ids: list[str] = []
        if not self._dry_run:
            kubeflow = Kubeflow(self._access)
            publish_tasks([task.spec for task in tasks], self._settings)
            ids = schedule_runs(submissions, self._settings, kubeflow, cron=cron)
        return {
            "experiment": self._experiment,
            "cron": cron,
            "tasks": [task.spec.name for task in tasks],
            "runs": [
                {
                    "recurring": recurring,
                    "url": kubeflow.link_recurring(recurring) if recurring else None,
                    "version": submission.version,
                    "tasks": list(submission.tasks),
                }
                for submission, recurring in itertools.zip_longest(submissions, ids)
            ],
        }

    def _start(
        self, tasks: "Sequence[ResolvedTask]", profile: Any, *, revision: str, aside: bool
    ) -> "tuple[Kubeflow, list[StartedRun]]":
        """Start what is not started yet, and print each run's page, on stderr if it is said aside."""
        from lorry_pipelines.cluster.kubeflow import Kubeflow
        from lorry_pipelines.cluster.started_runs import start_runs

        kubeflow = Kubeflow(self._access)
        runs = start_runs(
            tasks,
            self._settings,
            profile,
            kubeflow,
            self._registry.store,
            revision=revision,
            force=self._force,
        )
        for one in runs:
            if not one.is_new:
                print_line(f"a run with the same work is {one.run.state} already: {one.run.name}", err=True)
            print_line(f"run: {kubeflow.link_run(one.run.id)}", err=aside)
        return kubeflow, runs

    def _follow(
        self,
        kubeflow: "Kubeflow",
        runs: "Sequence[StartedRun]",
        *,
        quiet: bool,
        look: Callable[[], None] = lambda: None,
    ) -> "tuple[list[StartedRun], dict[str, TaskReport]]":
        from lorry_components.steps.report.step import summarize_run
        from lorry_components.steps.runtime.outcomes import RunRecord
        from lorry_pipelines.cluster.following import follow_runs
        from lorry_pipelines.local.display import Watcher, open_display, read_stored_progress

        records = {one.run.id: RunRecord(self._registry.store, one.run.id) for one in runs}
        with open_display([task for one in runs for task in one.tasks], quiet=quiet) as shown:
            watchers = {
                one.run.id: Watcher(
                    one.tasks,
                    records[one.run.id],
                    functools.partial(read_stored_progress, records[one.run.id]),
                    shown,
                    seconds=_LOOK_SECONDS,
                )
                for one in runs
            }

            def look_at_both(run: "Run") -> None:
                watchers[run.id](at_once=run.has_ended)
                look()

            try:
                ended = follow_runs(kubeflow, [one.run for one in runs], look_at_both)
            except KeyboardInterrupt:
                links = "\n".join(kubeflow.link_run(one.run.id) for one in runs)
                print_line("the run goes on, and the same command follows it again:", err=True)
                print_line(links, err=True)
                raise
        reports = [report for one in runs for report in summarize_run(records[one.run.id], one.tasks).tasks]
        followed = [dataclasses.replace(one, run=run) for one, run in zip(runs, ended, strict=True)]
        return followed, {report.task: report for report in reports}

    def _build(self, tasks: "Sequence[ResolvedTask]", profile: Any, *, revision: str) -> "list[Submission]":
        """Return what would be submitted; nothing where a dry run lacks what that needs."""
        from lorry_pipelines.cluster.started_runs import build_submissions
        from lorry_pipelines.cluster.submitted_work import read_heads

        if self._missing:
            return []
        heads = read_heads(self._registry.store, tasks)
        return build_submissions(
            tasks, self._settings, profile, revision=revision, force=self._force, heads=heads
        )

    def _describe(
        self,
        tasks: "Sequence[ResolvedTask]",
        planned: "Sequence[PlannedTask]",
        profile: Any,
        *,
        revision: str,
    ) -> dict[str, Any]:
        submissions = self._build(tasks, profile, revision=revision)
        return {
            "experiment": self._experiment,
            "runs": [
                {
                    # Its name is a digest of the data, among others.
                    "run": None if self._unsent else submission.run,
                    "version": submission.version,
                    "tasks": list(submission.tasks),
                }
                for submission in submissions
            ],
            "tasks": {plan.spec.name: plan.staleness.reason for plan in planned if plan.staleness.has_work},
            "current": {
                plan.spec.name: plan.staleness.reason for plan in planned if not plan.staleness.has_work
            },
        }

    def _finish(
        self,
        planned: "Sequence[PlannedTask]",
        reports: "Mapping[str, TaskReport]",
        runs: "Sequence[StartedRun]",
        *,
        as_json: bool,
        seconds: float,
        links: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        from lorry_pipelines.cli.run_summary import describe_tasks, print_summary

        rows = describe_tasks(planned, reports, self._registry)
        if as_json:
            run_of = {task: one.run.id for one in runs for task in one.tasks}
            print_json(
                [
                    row
                    | {"kfp_run": run_of.get(row["task"]), "kfp_url": links.get(run_of.get(row["task"], ""))}
                    for row in rows
                ]
            )
            return
        print_summary(rows, seconds=seconds, tracking_uri=self._settings.tracking_uri)
        shown = {row["task"]: row["mlflow_url"] or row["mlflow_run"] for row in rows if row["mlflow_run"]}
        if shown:
            click.echo("\nIn MLflow:")
            for task, place in shown.items():
                print_line(f"  {task}: {place}")
        if links:
            print_line(f"\nIn Kubeflow: {', '.join(links.values())}")


def _check_rows(tasks: "Sequence[ResolvedTask]") -> None:
    """Read the rows on this machine as ``lorry validate`` does, before anything is copied or started.

    Raises:
        LorryError: The data of one task cannot be used; where several have faults, all are printed.
    """
    from lorry_pipelines.cli.row_progress import show_rows
    from lorry_pipelines.data_review import review_data

    problems: dict[str, LorryError] = {}
    with show_rows(len(tasks), sys.stderr, "tables read") as report:
        for number, task in enumerate(tasks, start=1):
            _, found = review_data([task])
            problems |= found
            report(number)
    fail_after(problems)


def _describe_run(one: "StartedRun", kubeflow: "Kubeflow") -> dict[str, Any]:
    run = one.run
    return {
        "run": run.id,
        "name": run.name,
        "state": run.state,
        "url": kubeflow.link_run(run.id),
        "tasks": list(one.tasks),
    }


def _fail_with(
    runs: "Sequence[StartedRun]", reports: "Mapping[str, TaskReport]", links: Mapping[str, str]
) -> None:
    """End with a code that says whether all is well, as ``lorry run`` does.

    Raises:
        RunFailedError: A task failed, or a run did not succeed.
    """
    for name, report in reports.items():
        warning = report.details.get("register", {}).get("warning")
        if warning:
            print_warning(f"{name}: {warning}")
    bad = {one.run.id: _describe_failure(one, reports) for one in runs}
    lines = [line for found in bad.values() for line in found]
    if lines:
        pages = "\n  -> ".join(links[run] for run, found in bad.items() if found)
        raise RunFailedError(
            "\n".join(lines),
            todo=f"look at {pages}\n  -> submit again when it is corrected: finished tasks are not repeated",
        )


def _describe_failure(one: "StartedRun", reports: "Mapping[str, TaskReport]") -> list[str]:
    """Return what went wrong in a run, a line each; nothing if it and all its tasks succeeded."""
    failed = [reports[task] for task in one.tasks if reports[task].status == "failed"]
    is_cancelled = one.run.state == "CANCELED"
    # Of a run that was ended nothing is known of these but that.
    ended = [report.task for report in failed if is_cancelled and report.failure and report.failure.is_silent]
    lines = [
        f"{report.task} failed in {report.step}: {report.reason}"
        for report in failed
        if report.task not in ended
    ]
    if ended:
        lines.append(f"the run was cancelled before these were done: {', '.join(ended)}")
    if one.run.state != "SUCCEEDED" and not lines:
        lines.append(f"the run is {one.run.state}")
    if lines and one.run.message:
        lines.append(f"Kubeflow says: {one.run.message}")
    return lines


def _print_values(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            if value:
                print_line(f"{name}:")
            for key, inner in value.items():
                print_line(f"  {key}: {inner}")
        elif name == "runs":
            for one in value:
                known = [f"{key} {text}" for key, text in one.items() if isinstance(text, str)]
                print_line(f"run of {', '.join(one['tasks'])}: {', '.join(known)}")
        elif value is not None:
            print_line(f"{name}: {', '.join(value) if isinstance(value, list) else value}")


def find_revision(file: Path) -> str:
    """Return the commit of a task file, or nothing where it is under no version control."""
    from lorry_pipelines.local.source_revision import find_source

    source = find_source(file)
    return source.commit if source else ""
