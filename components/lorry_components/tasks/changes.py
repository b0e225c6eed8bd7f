"""What changed between what a version was trained from and what is there now, in words."""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from lorry_components.tasks.resolution import ResolvedTask
from lorry_registry.digests import shorten_digest
from lorry_registry.manifest import BaseIdentity, Manifest

_LISTED = 4
_SHOWN_CHARACTERS = 40
_REVISION_CHARACTERS = 12


def describe_changes(task: ResolvedTask, manifest: Manifest) -> dict[str, str]:
    """Return which of base, data and recipe a task has now that a version was not trained from.

    Returns:
        What changed -> how: fields of the recipe with both values, the base's name or revision, or else the
        beginnings of two digests.

    Raises:
        BaseModelError: The base is not usable.
        InvalidDataError: The source is not there.
    """
    now = {
        "base": task.base_identity.fingerprint,
        "data": task.source_digest,
        "recipe": task.recipe_digest,
    }
    before = {
        "base": manifest.base.fingerprint,
        "data": manifest.inputs.source_digest,
        "recipe": manifest.inputs.recipe_digest,
    }
    changed = {
        name: f"{shorten_digest(before[name], 8)} -> {shorten_digest(now[name], 8)}"
        for name in now
        if now[name] != before[name]
    }
    if "base" in changed:
        changed["base"] = _compare_bases(manifest.base, task.base_identity) or changed["base"]
    if "recipe" in changed:
        changed["recipe"] = compare_recipes(manifest.recipe, task.spec.describe_recipe()) or changed["recipe"]
    return changed


def compare_recipes(before: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> str:
    """Return the fields that differ, with both values: ``train.learning_rate 0.001 -> 0.003``; "" if none do.

    Args:
        before: The recipe that a manifest holds.
        now: A task's recipe, as :meth:`~lorry_registry.task_spec.TaskSpec.describe_recipe` returns it.
    """
    former, present = dict(_flatten(before)), dict(_flatten(now))
    names = [name for name in {**former, **present} if former.get(name) != present.get(name)]
    listed = [
        f"{_name_field(name)} {_show(former.get(name))} -> {_show(present.get(name))}"
        for name in names[:_LISTED]
    ]
    more = len(names) - _LISTED
    return ", ".join([*listed, *([f"and {more} more"] if more > 0 else [])])


def _compare_bases(before: BaseIdentity, now: BaseIdentity) -> str:
    """Return how the names differ; "" if only the files do."""
    if before.model != now.model:
        return f"{before.model} -> {now.model}"
    if before.revision != now.revision:
        former, present = (
            str(revision)[:_REVISION_CHARACTERS] for revision in (before.revision, now.revision)
        )
        return f"revision {former} -> {present}"
    return ""


def _flatten(value: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    for name, part in value.items():
        if isinstance(part, dict):
            yield from _flatten(part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", part


def _name_field(name: str) -> str:
    # As a task file has it, where options stand beside the method's name.
    return "evaluate.primary" if name == "primary" else name.replace("method.options.", "method.", 1)


def _show(value: JsonValue) -> str:
    if value is None:
        return "the default"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
