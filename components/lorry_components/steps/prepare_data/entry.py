"""Runs the data preparation from a component's arguments."""

from pathlib import Path
from typing import Any

from pydantic import JsonValue

from lorry_components.data.data_card import DataCard
from lorry_components.data.fingerprinting import gather_part_labels
from lorry_components.data.object_cache import ObjectCache
from lorry_components.data.prepared import load_part
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.steps.runtime.outcomes import Nothing, run_step
from lorry_components.steps.runtime.registered_candidate import RENEWED_DETAIL, RegisteredCandidate
from lorry_components.steps.runtime.step_context import StepContext
from lorry_components.tasks.staleness import Staleness, assess_staleness

_LISTED_CLASSES = 50


def main(
    *, task: str, run: str, store: str, tracking_uri: str, force: bool, data: str, metadata: dict[str, Any]
) -> str:
    """Prepare a task's data; return whether the graph goes on."""
    entry = StepContext.open("prepare_data", task=task, run=run, store=store, tracking_uri=tracking_uri)

    def body() -> dict[str, JsonValue]:
        staleness = assess_staleness(entry.task, entry.registry)
        if not staleness.has_work and not force:
            raise Nothing(
                staleness.reason,
                is_refused=staleness.is_refused or bool(staleness.retired),
                version=staleness.version,
            )
        images = ObjectCache(entry.settings.cache / "images", limit=entry.settings.cache_bytes)
        card = prepare_data(entry.task, Path(data), base=entry.task.base.folder, cache=images)
        if not force and staleness.is_stale:
            # The source differs from all that was trained from; its rows need not.
            read = assess_staleness(
                entry.task,
                entry.registry,
                data_digest=card.data_digest,
                gather=lambda: gather_part_labels(load_part(Path(data), part) for part in card.splits),
            )
            if not read.has_work:
                reason = f"{read.reason}; the source has another form, and the same rows"
                raise Nothing(reason, is_refused=read.is_refused, version=read.version)
            staleness = read
        metadata.update({"data_digest": card.data_digest, "task": entry.spec.name})
        return {
            "reason": staleness.reason,
            **_name_renewed(staleness, force=force),
            "data_digest": card.data_digest,
            "rows": {part: split.rows for part, split in card.splits.items()},
            "warnings": list(card.warnings),
            "source": card.source,
            "dropped": dict(card.dropped),
            "labels": _describe_labels(card),
        }

    return run_step(entry.record, entry.spec.name, "prepare_data", body)


def _describe_labels(card: DataCard) -> JsonValue:
    """Return how the labels of the training rows are distributed; None: they are too many classes to list."""
    labels = card.splits["train"].labels
    if isinstance(labels, dict):
        return dict(labels) if len(labels) <= _LISTED_CLASSES else None
    return labels.model_dump(mode="json")


def _name_renewed(staleness: Staleness, *, force: bool) -> dict[str, JsonValue]:
    """Name the version that is judged anew, so that the next step does not train."""
    if force or staleness.renewed is None or staleness.version is None:
        return {}
    candidate = RegisteredCandidate(
        version=staleness.version, adapter_id=staleness.renewed, why=staleness.why_renewed
    )
    return {RENEWED_DETAIL: candidate.model_dump_json()}
