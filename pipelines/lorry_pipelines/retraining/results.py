"""The results of a retraining, as plain values: for its summary and reports."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from lorry_components.steps.report.step import TaskReport
from lorry_components.tasks.inspection import Inspection
from lorry_pipelines.retraining.inspecting import describe_inspection, tell_changes

Outcome = Literal["promoted", "refused", "unchanged", "failed", "finished", "fresh", "left"]


@dataclass(frozen=True, slots=True)
class RetrainedTask:
    """What became of one task.

    Attributes:
        task: The task.
        outcome: ``promoted`` or ``refused`` by the gate; ``unchanged``: training gave an adapter that has a
            version already; ``failed``; ``finished``: what a killed retraining had left to do was done;
            ``fresh``: there was nothing to do; ``left`` for the next time.
        old_version: The champion's version before; None: there was none.
        new_version: The version that was trained or judged; None: none was.
        champion: The champion's version now; None: there is none.
        reasons: Why the task was stale, a line for each part that changed, or why it was not.
        decision: What the gate said, why the task failed or was left, or what was finished; "" if nothing.
        seconds: The time of its steps; None: none ended.
        inspection: How the task stood before.
        report: What its steps left; None: none ran.
    """

    task: str
    outcome: Outcome
    old_version: int | None
    new_version: int | None
    champion: int | None
    reasons: tuple[str, ...]
    decision: str
    seconds: float | None
    inspection: Inspection
    report: TaskReport | None = None


@dataclass(frozen=True, slots=True)
class Retraining:
    """What a retraining did.

    Attributes:
        tasks: Its tasks, in the order in which they were given, those too for which nothing was to be done.
        place: ``local`` or ``kubeflow``.
        runs: The ids of the runs, by which the store keeps the outcome of each step.
        urls: The pages of the runs; none on this machine.
        seconds: How long it took in all.
        time_limit: How many seconds it was allowed; None: any.
    """

    tasks: tuple[RetrainedTask, ...]
    place: Literal["local", "kubeflow"]
    runs: tuple[str, ...]
    urls: tuple[str, ...]
    seconds: float
    time_limit: float | None

    @property
    def left(self) -> list[RetrainedTask]:
        """What the next time has to do."""
        return [task for task in self.tasks if task.outcome == "left"]

    @property
    def postponed(self) -> list[RetrainedTask]:
        """The tasks that were to be trained or judged, and were left; not those that lack labelled rows."""
        return [task for task in self.left if task.inspection.has_work]

    @property
    def failed(self) -> list[RetrainedTask]:
        """The tasks that failed."""
        return [task for task in self.tasks if task.outcome == "failed"]


def describe_retraining(retraining: Retraining) -> dict[str, Any]:
    """Return what a retraining did as plain values, for machines."""
    return {
        "place": retraining.place,
        "runs": list(retraining.runs),
        "urls": list(retraining.urls),
        "seconds": retraining.seconds,
        "time_limit_seconds": retraining.time_limit,
        "outcomes": dict(Counter(task.outcome for task in retraining.tasks)),
        "left": [task.task for task in retraining.postponed],
        "tasks": [
            {
                "task": task.task,
                "outcome": task.outcome,
                "old_version": task.old_version,
                "new_version": task.new_version,
                "champion": task.champion,
                "reasons": list(task.reasons),
                "decision": task.decision,
                "seconds": task.seconds,
                "inspection": describe_inspection(task.inspection),
            }
            for task in retraining.tasks
        ],
    }


def build_result(
    inspection: Inspection,
    report: TaskReport | None,
    *,
    champion: int | None,
    left: str = "",
    finished: str = "",
) -> RetrainedTask:
    """Return what became of a task.

    Args:
        inspection: How it stood before.
        report: What its steps left; None: none ran.
        champion: The champion's version now.
        left: Why it was left for the next time; "": it was not.
        finished: What a killed retraining had left, and was done; "": nothing.
    """
    outcome: Outcome = "fresh"
    decision = finished
    if left:
        outcome, decision = "left", left
    elif report is not None:
        outcome, decision = _name_outcome(report), report.reason
    elif finished:
        outcome = "finished"
    registered = report.details.get("register", {}) if report is not None and not left else {}
    return RetrainedTask(
        task=inspection.task,
        outcome=outcome,
        old_version=inspection.champion,
        new_version=registered.get("version"),
        champion=champion,
        reasons=tuple(tell_changes(inspection))
        if inspection.has_work and inspection.changes
        else (inspection.reason,),
        decision=decision,
        seconds=sum(report.seconds.values()) if report is not None and report.seconds else None,
        inspection=inspection,
        report=report,
    )


def _name_outcome(report: TaskReport) -> Outcome:
    names: dict[str, Outcome] = {"challenger": "refused", "current": "fresh"}
    if report.status in names:
        return names[report.status]
    return (
        "promoted" if report.status == "promoted" else "failed" if report.status == "failed" else "unchanged"
    )
