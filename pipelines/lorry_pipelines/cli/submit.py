"""``lorry submit``: a run on a cluster, started once, followed to its end."""

import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lorry_pipelines.cli.kubeflow_options import (
    add_kubeflow_options,
    check_cron,
    find_access,
    override_kubeflow,
)
from lorry_pipelines.cli.task_options import files_argument, overrides_option
from lorry_pipelines.retraining.budget import BudgetSpentError
from lorry_registry.cli.edge import (
    fail_after,
    format_examples,
    json_option,
    load_settings,
    print_json,
    print_warning,
)
from lorry_registry.cli.prose import print_line
from lorry_registry.digest_cache import DigestCache
from lorry_registry.errors import Fault, InvalidTaskError, LorryError, RunFailedError, UsageError
from lorry_registry.registry import Registry

if TYPE_CHECKING:
    from lorry_components.steps.report.step import TaskReport
    from lorry_components.tasks.resolution import ResolvedTask
    from lorry_pipelines.cluster.kubeflow import Kubeflow, Run, RunOrder, Version
    from lorry_pipelines.cluster.kubeflow_access import KubeflowAccess
    from lorry_pipelines.cluster.profile import ClusterProfile
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
    host: str | None,
    namespace: str | None,
    experiment: str | None,
    service_account: str | None,
    ca_file: Path | None,
    profile_file: Path | None,
    wait: bool,
    force: bool,
    cron: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train, judge and register the adapters of tasks on a Kubeflow cluster.

    The tasks that are stale are compiled into a version of the pipeline and started as one run, unless a run
    with the same work is waiting, running or done: that one is shown, and followed with --wait. Data files of
    this machine are checked as by lorry validate, and copied into the store by their digest.

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
    settings = override_kubeflow(
        load_settings(),
        host=host,
        namespace=namespace,
        experiment=experiment,
        service_account=service_account,
        ca_file=ca_file,
        profile=profile_file,
    )
    missing: list[Fault] = []
    try:
        access = find_access(settings)
    except UsageError as error:
        if not dry_run:
            raise
        # A dry run asks nobody.
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
        """Start the run of the stale tasks once, and show or follow it."""
        from lorry_pipelines.cluster.submission import build_submission

        started = time.monotonic()
        stale = [plan for plan in planned if plan.staleness.has_work]
        if not stale:
            self._finish(planned, {}, as_json=as_json, seconds=time.monotonic() - started)
            return
        submission = None
        if not self._missing:
            submission = build_submission(
                [plan.task for plan in stale], self._settings, profile, revision=revision, force=self._force
            )
        if self._dry_run or submission is None:
            shown = _describe_submission(submission, self._experiment, planned)
            if self._unsent:
                # Its name is a digest of the data, among others.
                shown["run"] = None
            self._show_plan(shown, [plan.spec for plan in stale], profile, as_json=as_json)
            return
        kubeflow, run = self._start(submission, [plan.spec for plan in stale])
        link = kubeflow.link_run(run.id)
        print_line(f"run: {link}", err=as_json or wait)
        if not wait:
            if as_json:
                print_json({"run": run.id, "name": run.name, "state": run.state, "url": link})
            return
        run, reports = self._follow(kubeflow, run, [plan.spec.name for plan in stale], quiet=as_json)
        self._finish(
            planned, reports, as_json=as_json, seconds=time.monotonic() - started, run=run, link=link
        )
        _fail_with(run, reports, link)

    def follow_to_end(
        self,
        tasks: "Sequence[ResolvedTask]",
        profile: "ClusterProfile",
        *,
        revision: str,
        quiet: bool,
        prepare: Callable[[str], None],
        look: Callable[[], None],
    ) -> "tuple[Run, dict[str, TaskReport], str]":
        """Start the run of tasks once, follow it to its end, and return it with its reports and its page.

        Args:
            tasks: The tasks, with data that pods can reach.
            profile: How steps are placed.
            revision: The commit of the task files.
            quiet: Whether nothing is shown.
            prepare: Called with the run's id before it is followed.
            look: Called again and again; the run is ended if it raises.

        Raises:
            ClusterError: Kubeflow cannot be reached, or refuses.
        """
        from lorry_pipelines.cluster.submission import build_submission

        submission = build_submission(tasks, self._settings, profile, revision=revision, force=False)
        kubeflow, run = self._start(submission, [task.spec for task in tasks])
        link = kubeflow.link_run(run.id)
        print_line(f"run: {link}", err=True)
        prepare(run.id)
        try:
            run, reports = self._follow(
                kubeflow, run, [task.spec.name for task in tasks], quiet=quiet, look=look
            )
        except BudgetSpentError:
            kubeflow.terminate_run(run.id)
            raise
        return run, reports, link

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
        """Make the recurring run of these tasks; each of its runs trains what is stale then."""
        from lorry_pipelines.cluster.kubeflow import Kubeflow
        from lorry_pipelines.cluster.submission import build_submission, upload_package
        from lorry_pipelines.compilation import publish_tasks

        shown: dict[str, Any] = {
            "experiment": self._experiment,
            "name": self._experiment,
            "cron": cron,
            "version": None,
            "tasks": [task.spec.name for task in tasks],
        }
        if self._missing:
            return shown | {"recurring": None, "url": None}
        submission = build_submission(tasks, self._settings, profile, revision=revision, force=self._force)
        shown["version"] = submission.version
        if self._dry_run:
            return shown | {"recurring": None, "url": None}
        kubeflow = Kubeflow(self._access)
        publish_tasks([task.spec for task in tasks], self._settings)
        version = upload_package(submission, kubeflow)
        recurring = kubeflow.replace_recurring(
            kubeflow.ensure_experiment(self._experiment),
            self._order_run(submission, self._experiment, version),
            cron=cron,
        )
        return shown | {"recurring": recurring, "url": kubeflow.link_recurring(recurring)}

    def _start(self, submission: "Submission", specs: Sequence[Any]) -> "tuple[Kubeflow, Run]":
        from lorry_pipelines.cluster.kubeflow import Kubeflow
        from lorry_pipelines.cluster.submission import find_same_run, upload_package
        from lorry_pipelines.compilation import publish_tasks

        kubeflow = Kubeflow(self._access)
        experiment = kubeflow.ensure_experiment(self._experiment)
        same = find_same_run(submission, kubeflow, experiment)
        if same is not None:
            print_line(f"a run with the same work is {same.state} already: {same.name}", err=True)
            return kubeflow, same
        publish_tasks(specs, self._settings)
        version = upload_package(submission, kubeflow)
        run = kubeflow.start_run(experiment, self._order_run(submission, submission.run, version))
        return kubeflow, run

    def _order_run(self, submission: "Submission", name: str, version: "Version") -> "RunOrder":
        from lorry_pipelines.cluster.kubeflow import RunOrder

        return RunOrder(
            name=name,
            version=version,
            arguments={"force": True} if self._force else {},
            description=submission.description,
            service_account=self._settings.kubeflow.service_account,
        )

    def _follow(
        self,
        kubeflow: "Kubeflow",
        run: "Run",
        names: Sequence[str],
        *,
        quiet: bool,
        look: Callable[[], None] = lambda: None,
    ) -> "tuple[Run, dict[str, Any]]":
        from lorry_components.steps.report.step import summarize_run
        from lorry_components.steps.runtime.outcomes import RunRecord
        from lorry_pipelines.cluster.following import follow_run
        from lorry_pipelines.local.display import Watcher, open_display, read_stored_progress

        store = self._registry.store
        with open_display(names, quiet=quiet) as shown:
            record = RunRecord(store, run.id)
            read_progress = functools.partial(read_stored_progress, record)
            watcher = Watcher(names, record, read_progress, shown, seconds=_LOOK_SECONDS)

            def look_at_both(run: "Run") -> None:
                watcher(at_once=run.has_ended)
                look()

            try:
                run = follow_run(kubeflow, run, look_at_both)
            except KeyboardInterrupt:
                print_line(
                    f"the run goes on: {kubeflow.link_run(run.id)}\nthe same command follows it again",
                    err=True,
                )
                raise
        report = summarize_run(RunRecord(store, run.id), names)
        return run, {task.task: task for task in report.tasks}

    def _finish(
        self,
        planned: "Sequence[PlannedTask]",
        reports: Mapping[str, Any],
        *,
        as_json: bool,
        seconds: float,
        run: "Run | None" = None,
        link: str = "",
    ) -> None:
        from lorry_pipelines.cli.run_summary import describe_tasks, print_summary

        rows = describe_tasks(planned, reports, self._registry)
        if as_json:
            named = {"kfp_run": run.id if run else None, "kfp_url": link or None}
            print_json([row | named for row in rows])
            return
        print_summary(rows, seconds=seconds, tracking_uri=self._settings.tracking_uri)
        shown = {row["task"]: row["mlflow_url"] or row["mlflow_run"] for row in rows if row["mlflow_run"]}
        if shown:
            click.echo("\nIn MLflow:")
            for task, place in shown.items():
                print_line(f"  {task}: {place}")
        if run is not None:
            print_line(f"\nIn Kubeflow: {link}")


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


def _fail_with(run: "Run", reports: Mapping[str, Any], link: str) -> None:
    """End with a code that says whether all is well, as ``lorry run`` does.

    Raises:
        RunFailedError: A task failed, or the run did not succeed.
    """
    for name, report in reports.items():
        warning = report.details.get("register", {}).get("warning")
        if warning:
            print_warning(f"{name}: {warning}")
    failed = [report for report in reports.values() if report.status == "failed"]
    lines = [f"{report.task} failed in {report.step}: {report.reason}" for report in failed]
    if run.state != "SUCCEEDED" or lines:
        told = f"Kubeflow says: {run.message}" if run.message else ""
        raise RunFailedError(
            "\n".join([*(lines or [f"the run is {run.state}"]), *([told] if told else [])]),
            todo=f"look at {link}\n  -> submit again when it is corrected: finished tasks are not repeated",
        )


def _describe_submission(
    submission: "Submission | None", experiment: str, planned: "Sequence[PlannedTask]"
) -> dict[str, Any]:
    return {
        "experiment": experiment,
        "run": submission.run if submission else None,
        "version": submission.version if submission else None,
        "tasks": {plan.spec.name: plan.staleness.reason for plan in planned if plan.staleness.has_work},
        "current": {plan.spec.name: plan.staleness.reason for plan in planned if not plan.staleness.has_work},
    }


def _print_values(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            if value:
                print_line(f"{name}:")
            for key, inner in value.items():
                print_line(f"  {key}: {inner}")
        elif value is not None:
            print_line(f"{name}: {', '.join(value) if isinstance(value, list) else value}")


def find_revision(file: Path) -> str:
    """Return the commit of a task file, or nothing where it is under no version control."""
    from lorry_pipelines.local.source_revision import find_source

    source = find_source(file)
    return source.commit if source else ""
