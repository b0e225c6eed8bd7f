"""Runs the registration step from a component's arguments."""

from pathlib import Path
from typing import Any

from pydantic import JsonValue

from lorry_components.data.prepared import load_card
from lorry_components.steps.evaluate.evaluation_report import EvaluationReport
from lorry_components.steps.gate.step import Decision
from lorry_components.steps.register.renewed_judgement import judge_anew
from lorry_components.steps.register.step import register
from lorry_components.steps.runtime.outcomes import run_step
from lorry_components.steps.runtime.step_context import StepContext
from lorry_components.training.checkpoints.stored_checkpoints import find_place, warn_of_failure
from lorry_registry.adapters.stored_adapters import adapter_key
from lorry_registry.leases.work_leases import check_fence
from lorry_registry.mlflow.best_effort import BestEffort
from lorry_registry.mlflow.version_card import DECISION_TAG


def main(
    *,
    task: str,
    run: str,
    store: str,
    tracking_uri: str,
    data: str,
    candidate: str,
    evaluation: str,
    decision: str,
    adapter: Any,
    checkpoints: str = "",
) -> str:
    """Register a task's candidate; return whether the graph goes on.

    Its checkpoints are removed, if ``checkpoints`` names a place in a store: nothing goes on from them any
    more.

    ``adapter`` is Kubeflow's output artifact: it receives the address in the store, since a path inside a
    container means nothing outside of it.
    """
    entry = StepContext.open("register", task=task, run=run, store=store, tracking_uri=tracking_uri)

    def body() -> dict[str, JsonValue]:
        run_id = entry.find_mlflow_run()
        details: dict[str, JsonValue] = {"run": run, **({"mlflow_run_id": run_id} if run_id else {})}
        registration = register(
            entry.task,
            Path(candidate),
            EvaluationReport.load(Path(evaluation)),
            Decision.load(Path(decision)),
            registry=entry.registry,
            index=entry.index,
            details=details,
            build=entry.describe_build(run_id),
            judge=lambda: judge_anew(entry.task, Path(data), Path(evaluation), registry=entry.registry),
            guard=lambda: check_fence(entry.store, run, entry.spec.name),
            card=load_card(Path(data)),
        )
        event, manifest = registration.event, registration.manifest
        # The ledger returns an older event when this very adapter has a version already.
        is_known = event.details.get("run") != run
        if run_id and is_known:
            _mark_repetition(entry, run_id, event.version)
        if run_id:
            # The run's report closes it as well; but it may be interrupted, with this task done.
            BestEffort(f"MLflow shows the run of {entry.spec.name} as still going").attempt(
                lambda: entry.index.close_run(run_id, failed=False)
            )
        _remove_checkpoints(entry, checkpoints)
        uri = entry.store.locate(adapter_key(event.adapter_id))
        adapter.metadata.update({"task": entry.spec.name, "version": event.version, "store_uri": uri})
        adapter.metadata["adapter_id"] = event.adapter_id
        return {
            "version": event.version,
            "adapter_id": event.adapter_id,
            "uri": uri,
            "size_bytes": manifest.size_bytes,
            "known": is_known,
            "promoted": event.is_promotion and not is_known,
            "reasons": list(event.reasons) if not is_known else ["training gave the same adapter again"],
            "warning": registration.warning,
        }

    return run_step(entry.record, entry.spec.name, "register", body)


def _remove_checkpoints(entry: StepContext, checkpoints: str) -> None:
    name = entry.find_detail("checkpoints")
    if name is None:
        return
    place = find_place(checkpoints, name, store=entry.store.address, options=entry.settings.s3)
    if place is not None:
        warn_of_failure(
            lambda: place.open().remove_all(), f"checkpoints stay behind in {place.address}/{place.key}"
        )


def _mark_repetition(entry: StepContext, run_id: str, version: int) -> None:
    """Say in MLflow that a run trained the adapter that a version has already."""
    tags = {DECISION_TAG: "unchanged", "lorry.version": str(version)}
    BestEffort(f"MLflow does not say that {entry.spec.name} is unchanged").attempt(
        lambda: entry.index.set_tags(run_id, tags)
    )
