"""Reads from a registry what a report says: of a run, or of the newest versions of tasks."""

from collections.abc import Sequence

from lorry_components.steps.report.facts import ReportFacts
from lorry_components.steps.report.report_reading import NOTHING_RECORDED, Recorded, read_report, read_task
from lorry_components.steps.report.step import RunReport, TaskReport, report_task, summarize_run
from lorry_components.steps.runtime.outcomes import STEPS, RunRecord
from lorry_registry.errors import LorryError, NotFoundError
from lorry_registry.ledger.events import Event
from lorry_registry.ledger.promotion import Version, list_versions
from lorry_registry.manifest import Manifest
from lorry_registry.registry import Registry
from lorry_registry.stores import Store

_RUNS = "runs"
_REPORT_NAME = "report.json"


def gather_run(registry: Registry, run: str, tasks: Sequence[str] = ()) -> ReportFacts:
    """Return the report of a run.

    Args:
        registry: Where the run left its outcomes.
        run: Its id.
        tasks: The tasks to report; none: all that left an outcome.

    Raises:
        NotFoundError: The run left nothing, or nothing of one of these tasks.
        StoreError: The store cannot be read.
    """
    record = RunRecord(registry.store, run)
    known = record.list_tasks()
    missing = [task for task in tasks if task not in known]
    if not known or missing:
        raise NotFoundError(
            f"has no task {missing[0]!r}" if known else "left nothing in this store",
            where=f"run {run}",
            todo="look for the run's id in the output of lorry run, or in Kubeflow",
        )
    return describe_run(registry, summarize_run(record, tasks or known))


def describe_run(registry: Registry, report: RunReport) -> ReportFacts:
    """Return the report of a run whose outcomes were read; what the registry does not tell is left out."""
    return read_report(report, {task.task: find_recorded(registry, task) for task in report.tasks})


def gather_tasks(registry: Registry, tasks: Sequence[str]) -> ReportFacts:
    """Return a report on the newest version of each of some tasks.

    Raises:
        NotFoundError: There is no such task.
        StoreError: The store cannot be read.
    """
    found = []
    for task in tasks:
        # It says so if there is no such task.
        registry.ledger.require_state(task)
        newest = registry.list_versions(task)[-1]
        run = newest.registered.details.get("run")
        report = _read_former(registry.store, task, newest) or _report_version(task, newest.registered)
        name = run if isinstance(run, str) else ""
        found.append(read_task(report, find_recorded(registry, report), run=name))
    names = ", ".join(tasks) if len(tasks) < 4 else f"{len(tasks)} tasks"
    return ReportFacts(title=f"Newest version of {names}", tasks=tuple(found))


def find_last_run(store: Store) -> str:
    """Return the id of the run whose report was written last.

    Raises:
        NotFoundError: There is none.
        StoreError: The store cannot be read.
    """
    reports = [entry for entry in store.list_entries(_RUNS) if entry.key.endswith(f"/{_REPORT_NAME}")]
    newest = max(reports, key=lambda entry: entry.modified, default=None)
    if newest is None:
        raise NotFoundError("no run has ended yet", where=store.address, todo="run: lorry run TASK.yaml")
    return newest.key.split("/")[1]


def find_recorded(registry: Registry, report: TaskReport) -> Recorded:
    """Return what a registry says of the version that a task's report is about, as far as it can be read."""
    try:
        events = registry.ledger.read_events(registry.ledger.read_state(report.task))
        versions = {version.number: version for version in list_versions(events)}
        champion = events[-1].champion_after if events else None
        registered = report.details.get("register", {}).get("version")
        number = registered if registered is not None else champion if report.step == STEPS[0] else None
        version = versions.get(number) if isinstance(number, int) and report.status != "failed" else None
        former = versions.get(_find_judged(report) or 0)
    except LorryError:
        # The report is written after any failure, and says what is left to say.
        return NOTHING_RECORDED
    return Recorded(
        event=version.registered if version else None,
        manifest=_read_manifest(registry, version),
        former=_read_manifest(registry, former),
        former_report=_read_former(registry.store, report.task, former) if former else None,
        champion=champion,
    )


def _find_judged(report: TaskReport) -> int | None:
    """Return the version of the champion that a candidate was compared with."""
    comparison = report.details.get("evaluate", {}).get("champion")
    version = comparison.get("version") if isinstance(comparison, dict) else None
    return version if isinstance(version, int) else None


def _read_manifest(registry: Registry, version: Version | None) -> Manifest | None:
    try:
        return registry.read_manifest(version.adapter_id) if version else None
    except LorryError:
        # Collected or damaged: ``lorry verify`` says so.
        return None


def _read_former(store: Store, task: str, version: Version) -> TaskReport | None:
    """Return what the run that registered a version left of it, if it is still there."""
    run = version.registered.details.get("run")
    try:
        outcomes = RunRecord(store, run).read(task) if isinstance(run, str) and run else []
    except (LorryError, ValueError):
        return None
    return report_task(task, outcomes) if outcomes else None


def _report_version(task: str, event: Event) -> TaskReport:
    """Return what the ledger alone tells of a version, whose run left nothing here."""
    return TaskReport(
        task=task,
        status="promoted" if event.is_promotion else "challenger",
        step=STEPS[-1],
        reason="; ".join(event.reasons),
        failure=None,
        details={"register": {"version": event.version, "reasons": list(event.reasons)}},
        seconds={},
    )
