"""Whether an adapter exists that was trained from the same data, on the same base, by the same recipe."""

from dataclasses import dataclass

from lorry_components.tasks.changes import describe_changes
from lorry_components.tasks.resolution import ResolvedTask
from lorry_registry.ledger import require_present
from lorry_registry.registry import Registry


@dataclass(frozen=True, slots=True)
class Staleness:
    """Whether a task needs training.

    Attributes:
        is_stale: Whether it does.
        reason: Why, or why not, in a sentence.
        version: The version that is up to date, if one is.
    """

    is_stale: bool
    reason: str
    version: int | None = None


def assess_staleness(task: ResolvedTask, registry: Registry) -> Staleness:
    """Compare what a task would be trained from with what its versions were trained from.

    Raises:
        BaseModelError: The base is not usable.
        InvalidDataError: The source is not there.
        NotFoundError: The task was deleted: nothing that is trained could be registered.
    """
    require_present(registry.ledger.read_state(task.spec.name))
    versions = registry.list_versions(task.spec.name)
    if not versions:
        return Staleness(is_stale=True, reason="it has no adapter yet")
    changes: dict[str, str] = {}
    newest = 0
    for version in reversed(versions):
        manifest = registry.read_version(task.spec.name, version.number, version.adapter_id)
        if manifest is None:
            # Its files were collected: nobody could use it.
            continue
        changed = describe_changes(task, manifest)
        if not changed:
            return Staleness(
                is_stale=False,
                reason=f"v{version.number} was trained from the same data, base and recipe",
                version=version.number,
            )
        if not changes:
            changes, newest = changed, version.number
    reasons = [f"{name} changed since v{newest} ({how})" for name, how in changes.items()]
    return Staleness(is_stale=True, reason="; ".join(reasons) or "the files of its adapters were collected")
