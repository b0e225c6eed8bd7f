"""Runs this step from a component's arguments."""

from pathlib import Path
from typing import Any

from pydantic import JsonValue

from lorry_components.models.bases import find_base_folder
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.steps.runtime.outcomes import Nothing, run_step
from lorry_components.steps.runtime.step_context import StepContext
from lorry_components.tasks.staleness import assess_staleness


def main(
    *, task: str, run: str, store: str, tracking_uri: str, force: bool, data: str, metadata: dict[str, Any]
) -> str:
    """Prepare a task's data; return whether the graph goes on."""
    entry = StepContext.open("prepare_data", task=task, run=run, store=store, tracking_uri=tracking_uri)

    def body() -> dict[str, JsonValue]:
        staleness = assess_staleness(entry.spec, entry.registry)
        if not staleness.is_stale and not force:
            raise Nothing(staleness.reason)
        # It was found, and downloaded if need be, when the adapters there are were compared with the task.
        card = prepare_data(entry.spec, Path(data), base=find_base_folder(entry.spec.base))
        metadata.update({"data_digest": card.data_digest, "task": entry.spec.name})
        return {
            "reason": staleness.reason,
            "data_digest": card.data_digest,
            "rows": {part: split.rows for part, split in card.splits.items()},
            "warnings": list(card.warnings),
        }

    return run_step(entry.record, entry.spec.name, "prepare_data", body)
