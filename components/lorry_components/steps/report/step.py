"""The report of a run: a table of its tasks, with each failure and its step."""

import html
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from lorry_components.steps.runtime.outcomes import STEPS, Failure, Outcome, RunRecord
from lorry_registry.digests import canonical_json
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
    return RunReport(run=record.run, tasks=tuple(_report_task(task, record.read(task)) for task in tasks))


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


def _report_task(task: str, outcomes: Sequence[Outcome]) -> TaskReport:
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
        return "failed", message, Failure(error="Killed", message=message, exit_code=1)
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


def render_html(report: RunReport) -> str:
    """Return the report as a page, for the Kubeflow UI."""
    rows = "\n".join(_render_row(task) for task in report.tasks)
    return f"""<!doctype html>
<meta charset="utf-8">
<title>{html.escape(report.run)}</title>
<style>
  body {{ font: 14px/1.45 system-ui, sans-serif; margin: 2rem; color: #1d2733; }}
  table {{ border-collapse: collapse; }}
  th, td {{ text-align: left; padding: .45rem .9rem; border-bottom: 1px solid #dfe5ec; vertical-align: top; }}
  td.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
  .promoted {{ color: #11703f; }} .challenger {{ color: #8a5a00; }} .failed {{ color: #b3261e; }}
  .current, .unchanged {{ color: #5a6673; }}
  pre {{ margin: 0; white-space: pre-wrap; font-size: 12px; }}
</style>
<h1>Run {html.escape(report.run)}</h1>
<table>
<tr><th>task<th>outcome<th>version<th>metric<th>costs nothing<th>why</tr>
{rows}
</table>
"""


def _read_address(page: object) -> str:
    """Return the address of a page, or nothing: the store's documents are not ours alone to write."""
    return page if isinstance(page, str) and page.startswith(("http://", "https://")) else ""


def _render_row(task: TaskReport) -> str:
    registered = task.details.get("register", {})
    evaluated = task.details.get("evaluate", {})
    value = evaluated.get("value")
    metric = f"{evaluated.get('metric')} {value:.3f}" if isinstance(value, float) else ""
    best = max(evaluated.get("baselines") or (), key=lambda each: float(each["value"]), default=None)
    baseline = f"{best['name']} {best['value']:.3f}" if best else ""
    version = f"v{registered['version']}" if "version" in registered else ""
    status = task.status if task.status != "failed" else f"failed in {task.step}"
    page = _read_address(task.details.get("finetune", {}).get("mlflow_url"))
    name = html.escape(task.task)
    cells: Iterable[str] = (
        f'<td><a href="{html.escape(page)}">{name}</a>' if page else f"<td>{name}",
        f'<td class="{task.status}">{html.escape(status)}',
        f"<td>{version}",
        f'<td class="number">{html.escape(metric)}',
        f'<td class="number">{html.escape(baseline)}',
        f"<td><pre>{html.escape(task.reason)}</pre>",
    )
    return f"<tr>{''.join(cells)}</tr>"
