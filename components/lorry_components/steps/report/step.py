"""The outcomes of a run's tasks, each failure with its step."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from lorry_components.steps.runtime.outcomes import SILENT_END, STEPS, Failure, Outcome, RunRecord
from lorry_registry.files.digests import canonical_json
from lorry_registry.stores import Store

TaskStatus = Literal["promoted", "challenger", "unchanged", "current", "failed"]


class TaskReport(BaseModel):
    """The outcome of one task of a run.

    Attributes:
        task: The task.
        status: ``promoted`` or ``challenger`` for a new version, ``unchanged`` when training gave an adapter
            that has a version already, ``current`` when there was nothing to do; ``challenger`` as well when
            there was nothing to do but the gate refused what is there.
        step: The last step that was reached.
        reason: Why, in a sentence or two.
        failure: Why it failed, if it did.
        details: The details that each step left.
        seconds: The time of each step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    status: TaskStatus
    step: str
    reason: str
    failure: Failure | None
    details: dict[str, dict[str, Any]]
    seconds: dict[str, float]


class RunReport(BaseModel):
    """The outcome of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    tasks: tuple[TaskReport, ...]

    @property
    def failed(self) -> list[TaskReport]:
        """The tasks that failed."""
        return [task for task in self.tasks if task.status == "failed"]


def summarize_run(record: RunRecord, tasks: Sequence[str]) -> RunReport:
    """Collect the outcomes of a run.

    Args:
        record: The outcomes.
        tasks: The tasks that the run was asked for: one without an outcome was killed early.
    """
    return RunReport(run=record.run, tasks=tuple(report_task(task, record.read(task)) for task in tasks))


def report_run(record: RunRecord, tasks: Sequence[str], store: Store) -> RunReport:
    """Collect the outcomes of a run, as :func:`summarize_run` does, and keep them.

    Args:
        record: The outcomes.
        tasks: The tasks that the run was asked for.
        store: Where the report is kept, as ``runs/<run>/report.json``.
    """
    report = summarize_run(record, tasks)
    store.replace(f"runs/{record.run}/report.json", canonical_json(report.model_dump(mode="json")))
    return report


def report_task(task: str, outcomes: Sequence[Outcome]) -> TaskReport:
    """Return what became of one task.

    Args:
        task: The task.
        outcomes: What its steps left, in their order.
    """
    last = outcomes[-1] if outcomes else None
    details = {outcome.step: outcome.details for outcome in outcomes}
    status, reason, failure = _judge(last)
    return TaskReport(
        task=task,
        status=status,
        step=_find_unfinished_step(last) if status == "failed" else last.step if last else STEPS[0],
        reason=reason,
        failure=failure,
        details=details,
        seconds={outcome.step: outcome.seconds for outcome in outcomes},
    )


def _judge(last: Outcome | None) -> tuple[TaskStatus, str, Failure | None]:
    if last is not None and last.status == "failed" and last.failure is not None:
        return "failed", last.failure.message, last.failure
    if last is not None and last.status == "current":
        # With a refused version a task may have no champion at all: that is not up to date.
        status: TaskStatus = "challenger" if last.details.get("refused") else "current"
        return status, str(last.details.get("reason", "")), None
    if last is None or last.step != STEPS[-1]:
        step = _find_unfinished_step(last)
        message = f"{step} ended without a report: it was killed, perhaps for lack of memory or disk space"
        return "failed", message, Failure(error=SILENT_END, message=message, exit_code=1)
    reasons = last.details.get("reasons")
    reason = "; ".join(map(str, reasons)) if isinstance(reasons, list) else ""
    if last.details.get("known"):
        return "unchanged", reason, None
    return "promoted" if last.details.get("promoted") else "challenger", reason, None


def _find_unfinished_step(last: Outcome | None) -> str:
    if last is None:
        return STEPS[0]
    if last.status == "failed" or last.step == STEPS[-1]:
        return last.step
    return STEPS[STEPS.index(last.step) + 1]
