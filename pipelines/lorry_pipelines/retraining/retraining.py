"""A retraining: each stale task is trained once, under its lease and within a time limit."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from lorry_components.steps.report.step import TaskReport, summarize_run
from lorry_components.steps.runtime.outcomes import STEPS, RunRecord
from lorry_components.tasks.inspection import Inspection
from lorry_components.tasks.resolution import ResolvedTask
from lorry_pipelines.retraining.inspecting import Inspections
from lorry_pipelines.retraining.planning import Expectation
from lorry_pipelines.retraining.results import RetrainedTask, Retraining, build_result
from lorry_pipelines.retraining.time_limit import Deadline, choose_within
from lorry_pipelines.scheduling import PlannedTask
from lorry_registry.errors import LorryError
from lorry_registry.leases.work_leases import WorkLease, is_unfinished, keep_leases, take_lease
from lorry_registry.registry import Registry


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """What a run left.

    Attributes:
        runs: The ids of the runs; on a cluster many tasks become several.
        reports: Task -> what its steps left.
        urls: Their pages; none on this machine.
        is_cut: Whether the time limit ended it.
    """

    runs: tuple[str, ...] = ()
    reports: Mapping[str, TaskReport] = field(default_factory=dict)
    urls: tuple[str, ...] = ()
    is_cut: bool = False


class Runner(Protocol):
    """What trains, judges and registers tasks somewhere."""

    place: Literal["local", "kubeflow"]

    def expect(self, tasks: Sequence[ResolvedTask], *, plans_memory: bool) -> list[Expectation]:
        """Return what tasks would take there."""

    def run(
        self, planned: Sequence[PlannedTask], *, prepare: Callable[[str], None], look: Callable[[], None]
    ) -> FinishedRun:
        """Run tasks to their end.

        Args:
            planned: The tasks.
            prepare: Called with the run's id before anything of it can be registered.
            look: Called again and again; the run is ended if it raises TimeLimitError.
        """


@dataclass(frozen=True, slots=True)
class RetrainingPlan:
    """What a retraining would do.

    Attributes:
        expected: What each stale task would take.
        chosen: Those that it would begin with.
        left: The others -> why they are left for the next time.
    """

    expected: Mapping[str, Expectation]
    chosen: Sequence[str]
    left: Mapping[str, str]


class Retrainer:
    """Retrains tasks.

    Args:
        registry: Where adapters are.
        runner: Where they are trained.
        inspect: Compares tasks with their champions, each time anew.
        finish: Makes MLflow agree with the ledger on a task, and returns what it changed.
        time_limit: How many seconds it may take; None: any.
        most: How many tasks it may train; None: any.
        first: The tasks that it begins with, since they were asked for.
    """

    def __init__(
        self,
        registry: Registry,
        runner: Runner,
        inspect: Callable[[Sequence[str] | None], tuple[dict[str, ResolvedTask], Inspections]],
        finish: Callable[[str], Sequence[str]],
        *,
        time_limit: float | None = None,
        most: int | None = None,
        first: Collection[str] = (),
    ) -> None:
        self._registry = registry
        self._runner = runner
        self._inspect = inspect
        self._finish = finish
        self._time_limit = time_limit
        self._most = most
        self._first = first
        self._started = time.monotonic()
        self._deadline = Deadline(time_limit)
        self._tasks, self.inspections = inspect(None)

    def plan(self, *, plans_memory: bool) -> RetrainingPlan:
        """Return what it would do.

        Raises:
            StoreError: The store cannot be read.
        """
        stale = [name for name, found in self.inspections.found.items() if found.has_work]
        expected = self._runner.expect([self._tasks[name] for name in stale], plans_memory=plans_memory)
        by_task = {expectation.task: expectation for expectation in expected}
        seconds = {task: expectation.seconds for task, expectation in by_task.items()}
        chosen, left = choose_within(
            stale, seconds, time_limit=self._time_limit, most=self._most, first=self._first
        )
        drifted = {
            name: found.reason
            for name, found in self.inspections.found.items()
            if found.is_stale and not found.has_work
        }
        return RetrainingPlan(by_task, chosen, {**left, **drifted})

    def retrain(self, plan: RetrainingPlan) -> Retraining:
        """Do what was planned, as far as no one else does it.

        Raises:
            LorryError: Nothing can be started, as with ``lorry run``.
            StoreError: The store cannot be read or written.
        """
        left = dict(plan.left)
        leases = self._take_leases(plan.chosen, left)
        with keep_leases(list(leases.values())):
            # What someone else did until a moment ago is not done again.
            tasks, fresh = self._inspect([name for name in leases if name in plan.chosen])
            self.inspections.problems.update(fresh.problems)
            left.update(
                {name: f"it cannot be retrained: {error.what}" for name, error in fresh.problems.items()}
            )
            planned = [
                PlannedTask(tasks[name], found.staleness)
                for name, found in fresh.found.items()
                if found.has_work
            ]
            done = self._run(planned, leases) if planned else FinishedRun()
            finished = {name: self._finish_half_done(lease) for name, lease in leases.items()}
            for name, lease in leases.items():
                lease.is_half_done = done.is_cut and name in done.reports
        results = [
            self._build_result(fresh.found.get(name, found), done, left.get(name, ""), finished.get(name, ""))
            for name, found in self.inspections.found.items()
        ]
        return Retraining(
            tasks=tuple(results),
            place=self._runner.place,
            runs=done.runs,
            urls=done.urls,
            seconds=time.monotonic() - self._started,
            time_limit=self._time_limit,
        )

    def _take_leases(self, chosen: Sequence[str], left: dict[str, str]) -> dict[str, WorkLease]:
        """Take the leases on what is to be trained, and on what someone who ended left half done."""
        store = self._registry.store
        idle = [name for name, found in self.inspections.found.items() if not found.has_work]
        leases: dict[str, WorkLease] = {}
        try:
            for name in [*chosen, *(name for name in idle if is_unfinished(store, name))]:
                lease = take_lease(store, name)
                if isinstance(lease, WorkLease):
                    leases[name] = lease
                elif name in chosen:
                    left[name] = f"it is being retrained already, by {lease.describe_holder()}"
        except BaseException:
            for lease in leases.values():
                lease.release()
            raise
        return leases

    def _run(self, planned: Sequence[PlannedTask], leases: Mapping[str, WorkLease]) -> FinishedRun:
        def prepare(run: str) -> None:
            for task in planned:
                leases[task.spec.name].fence(run)

        return self._runner.run(planned, prepare=prepare, look=self._deadline)

    def _finish_half_done(self, lease: WorkLease) -> str:
        """Do what a killed retraining had not come to after it wrote the ledger; return what that was."""
        if not lease.follows_unfinished:
            return ""
        try:
            return "; ".join(self._finish(lease.task))
        except LorryError as error:
            # The ledger is right, and MLflow shows it when it can be reached again.
            return f"MLflow could not be brought up to date: {error.what}"

    def _build_result(
        self, inspection: Inspection, done: FinishedRun, left: str, finished: str
    ) -> RetrainedTask:
        report = done.reports.get(inspection.task)
        if (
            done.is_cut
            and report is not None
            and report.status == "failed"
            and report.step not in report.details
        ):
            left = _explain_cut(report.step)
        champion = self._registry.ledger.read_state(inspection.task).champion_version
        return build_result(inspection, report, champion=champion, left=left, finished=finished)


def _explain_cut(step: str) -> str:
    if step == STEPS[0]:
        return "the time limit was reached before it was trained"
    return f"the time limit was reached in {step}; the next time goes on from its checkpoint"


def summarize_cut_runs(registry: Registry, runs: Sequence[str], tasks: Sequence[str]) -> FinishedRun:
    """Return what runs left that the time limit ended; each task was in one of them."""
    reports: dict[str, TaskReport] = {}
    for run in runs:
        record = RunRecord(registry.store, run)
        known = set(record.list_tasks())
        here = [task for task in tasks if task in known or (len(runs) == 1)]
        reports |= {report.task: report for report in summarize_run(record, here).tasks}
    return FinishedRun(tuple(runs), reports, is_cut=True)
