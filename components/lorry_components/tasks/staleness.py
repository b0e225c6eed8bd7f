"""Whether an adapter exists that was learned from the same data, on the same base, by the same recipe."""

from dataclasses import dataclass

from lorry_components.data.reading import digest_source
from lorry_components.models.bases import resolve_base
from lorry_components.tasks.checks import find_task_type
from lorry_registry.digests import shorten_digest
from lorry_registry.manifest import Manifest
from lorry_registry.registry import Registry
from lorry_registry.task_spec import TaskSpec


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


def assess_staleness(spec: TaskSpec, registry: Registry) -> Staleness:
    """Compare what a task would be trained from with what its versions were trained from.

    Raises:
        BaseModelError: The base is not usable.
        InvalidDataError: The source is not there.
    """
    wanted = {
        "base": resolve_base(spec.base).identity.fingerprint,
        "data": digest_source(spec.data, find_task_type(spec)),
        "recipe": spec.recipe_digest,
    }
    versions = registry.list_versions(spec.name)
    if not versions:
        return Staleness(is_stale=True, reason="it has no adapter yet")
    changes: list[str] = []
    for version in reversed(versions):
        seen = _list_inputs(registry.read_manifest(version.adapter_id))
        changed = [name for name in wanted if wanted[name] != seen[name]]
        if not changed:
            return Staleness(
                is_stale=False,
                reason=f"v{version.number} was trained from the same data, base and recipe",
                version=version.number,
            )
        if not changes:
            changes = [
                f"{name} changed since v{version.number} "
                f"({shorten_digest(seen[name], 8)} -> {shorten_digest(wanted[name], 8)})"
                for name in changed
            ]
    return Staleness(is_stale=True, reason=", ".join(changes))


def _list_inputs(manifest: Manifest) -> dict[str, str]:
    return {
        "base": manifest.base.fingerprint,
        "data": manifest.inputs.source_digest,
        "recipe": manifest.inputs.recipe_digest,
    }
