"""Runs the data preparation from a component's arguments."""

from pathlib import Path
from typing import Any

from pydantic import JsonValue

from lorry_components.data.object_cache import ObjectCache
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.steps.runtime.outcomes import Nothing, run_step
from lorry_components.steps.runtime.step_context import StepContext, record_unreadable_task
from lorry_components.tasks.staleness import assess_staleness
from lorry_registry.errors import InvalidTaskError, StoreError


def main(
    *, task: str, run: str, store: str, tracking_uri: str, force: bool, data: str, metadata: dict[str, Any]
) -> str:
    """Prepare a task's data; return whether the graph goes on."""
    places = {"task": task, "run": run, "store": store}
    try:
        entry = StepContext.open("prepare_data", tracking_uri=tracking_uri, **places)
    except (InvalidTaskError, StoreError) as error:
        # Were this step to fail, the graph would take the other tasks down with this one.
        return record_unreadable_task(error, "prepare_data", **places)

    def body() -> dict[str, JsonValue]:
        staleness = assess_staleness(entry.task, entry.registry)
        if not staleness.is_stale and not force:
            raise Nothing(staleness.reason)
        images = ObjectCache(entry.settings.cache / "images", limit=entry.settings.cache_bytes)
        card = prepare_data(entry.task, Path(data), base=entry.task.base.folder, cache=images)
        metadata.update({"data_digest": card.data_digest, "task": entry.spec.name})
        return {
            "reason": staleness.reason,
            "data_digest": card.data_digest,
            "rows": {part: split.rows for part, split in card.splits.items()},
            "warnings": list(card.warnings),
        }

    return run_step(entry.record, entry.spec.name, "prepare_data", body)
