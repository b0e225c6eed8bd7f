"""Whether an adapter exists that was trained from the same data, on the same base, by the same recipe."""

from dataclasses import dataclass

from lorry_components.tasks.resolution import ResolvedTask
from lorry_registry.digests import shorten_digest
from lorry_registry.ledger import require_present
from lorry_registry.manifest import Manifest
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
    present = {
        "base": task.base_identity.fingerprint,
        "data": task.source_digest,
        "recipe": task.recipe_digest,
    }
    versions = registry.list_versions(task.spec.name)
    if not versions:
        return Staleness(is_stale=True, reason="it has no adapter yet")
    changes: list[str] = []
    for version in reversed(versions):
        manifest = registry.read_version(task.spec.name, version.number, version.adapter_id)
        if manifest is None:
            # Its files were collected: nobody could use it.
            continue
        recorded = _list_inputs(manifest)
        changed = [name for name in present if present[name] != recorded[name]]
        if not changed:
            return Staleness(
                is_stale=False,
                reason=f"v{version.number} was trained from the same data, base and recipe",
                version=version.number,
            )
        if not changes:
            changes = [
                f"{name} changed since v{version.number} "
                f"({shorten_digest(recorded[name], 8)} -> {shorten_digest(present[name], 8)})"
                for name in changed
            ]
    return Staleness(is_stale=True, reason=", ".join(changes) or "the files of its adapters were collected")


def _list_inputs(manifest: Manifest) -> dict[str, str]:
    return {
        "base": manifest.base.fingerprint,
        "data": manifest.inputs.source_digest,
        "recipe": manifest.inputs.recipe_digest,
    }
