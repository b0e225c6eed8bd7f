"""All tasks beside their champions; what is wrong with one hides none of the others."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lorry_components.data.object_cache import ObjectCache
from lorry_components.tasks.inspection import Inspection, inspect_task
from lorry_components.tasks.resolution import ResolvedTask
from lorry_registry.errors import LorryError
from lorry_registry.registry import Registry


@dataclass(frozen=True, slots=True)
class Inspections:
    """How tasks stand.

    Attributes:
        found: Task -> how it stands.
        problems: Task -> why it is not known.
    """

    found: dict[str, Inspection] = field(default_factory=dict)
    problems: dict[str, LorryError] = field(default_factory=dict)


def inspect_tasks(
    tasks: Sequence[ResolvedTask],
    registry: Registry,
    *,
    reads_rows: bool = True,
    cache: ObjectCache | None = None,
) -> Inspections:
    """Compare tasks with their champions, as :func:`~lorry_components.tasks.inspection.inspect_task` does."""
    inspections = Inspections()
    for task in tasks:
        try:
            inspections.found[task.spec.name] = inspect_task(
                task, registry, reads_rows=reads_rows, cache=cache
            )
        except LorryError as error:
            inspections.problems[task.spec.name] = error
    return inspections


def describe_inspection(inspection: Inspection) -> dict[str, Any]:
    """Return how a task stands as plain values, for machines."""
    rows = inspection.rows
    return {
        "task": inspection.task,
        "state": inspection.state,
        "stale": inspection.is_stale,
        "reason": inspection.reason,
        "champion": inspection.champion,
        "version": inspection.version,
        "compared_with": inspection.compared,
        "changes": [
            {
                "part": change.part,
                "how": change.how,
                "fields": {name: list(values) for name, values in change.fields.items()},
            }
            for change in inspection.changes
        ],
        "rows": None
        if rows is None
        else {"added": rows.added, "removed": rows.removed, "relabelled": rows.relabelled},
        "notes": list(inspection.notes),
    }


def tell_changes(inspection: Inspection) -> list[str]:
    """Return what changed in words, a line for each part; what is known in rows is counted in rows."""
    lines = []
    for change in inspection.changes:
        counted = inspection.rows.describe() if change.part == "data" and inspection.rows else ""
        lines.append(f"{change.part}: {counted or change.how}")
    return lines
