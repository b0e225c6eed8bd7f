"""Runs the gate from a component's arguments."""

from pathlib import Path
from typing import Any

from pydantic import JsonValue

from lorry_components.steps.evaluate.evaluation_report import EvaluationReport
from lorry_components.steps.gate.step import DECISION_NAME, decide
from lorry_components.steps.runtime.outcomes import run_step
from lorry_components.steps.runtime.step_context import StepContext
from lorry_registry.mlflow.best_effort import BestEffort


def main(
    *,
    task: str,
    run: str,
    store: str,
    tracking_uri: str,
    evaluation: str,
    decision: str,
    metadata: dict[str, Any],
) -> str:
    """Judge a task's candidate; return whether the graph goes on. A refused candidate goes on, too."""
    entry = StepContext.open("gate", task=task, run=run, store=store, tracking_uri=tracking_uri)

    def body() -> dict[str, JsonValue]:
        decided = decide(entry.spec.gate, EvaluationReport.load(Path(evaluation)))
        decided.save(Path(decision))
        metadata["passed"] = decided.passed
        _log_to_mlflow(entry, Path(decision) / DECISION_NAME)
        return {
            "passed": decided.passed,
            "reasons": list(decided.reasons),
            "against": list(decided.against),
        }

    return run_step(entry.record, entry.spec.name, "gate", body)


def _log_to_mlflow(entry: StepContext, document: Path) -> None:
    run_id = entry.find_mlflow_run()
    if run_id is not None:
        BestEffort(f"MLflow does not show the decision on {entry.spec.name}").attempt(
            lambda: entry.index.log_artifact(run_id, document)
        )
