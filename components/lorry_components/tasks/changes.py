"""The changes between the inputs of a version and those of today, in words and as values."""

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from lorry_components.tasks.code_versions import list_code_versions
from lorry_components.tasks.resolution import ResolvedTask
from lorry_components.tasks.resolved_recipe import flatten, write_out
from lorry_registry.files.digests import shorten_digest
from lorry_registry.manifest import BaseIdentity, Manifest
from lorry_registry.tasks.task_spec import TaskSpec

_LISTED = 4
_SHOWN_CHARACTERS = 40
_REVISION_CHARACTERS = 12
# Its own version changes with each release; what it trains with is in the versions of its code.
_OWN_NAME = "lorry"


@dataclass(frozen=True, slots=True)
class Change:
    """One part of what a version was made of that is another now.

    Attributes:
        part: ``base``, ``data``, ``recipe``, ``code`` or ``libraries``.
        how: How it changed, in words.
        fields: Each field, name or library that differs -> its value then and now; None: it had or has none.
    """

    part: str
    how: str
    fields: Mapping[str, tuple[JsonValue, JsonValue]] = field(default_factory=dict)


def find_changes(task: ResolvedTask, manifest: Manifest, *, data_digest: str | None = None) -> list[Change]:
    """Return what a task has now that a version was not trained from.

    A version is compared by what its manifest says.

    Args:
        task: The task.
        manifest: The version's.
        data_digest: The digest of the task's rows, if they were read: a source whose form alone is another,
            or the order of its rows, is no change then.

    Raises:
        BaseModelError: The base is not usable.
        InvalidDataError: The source is not there.
    """
    found = (
        _compare_bases(manifest.base, task.base_identity),
        _compare_data(manifest, task, data_digest),
        _compare_settings(manifest, task),
        _compare_code(manifest, task.spec),
        find_library_changes(manifest) if asks_for_libraries(task.spec) else None,
    )
    return [change for change in found if change is not None]


def asks_for_libraries(spec: TaskSpec) -> bool:
    """Return whether other versions of libraries make a task's adapter stale."""
    return spec.retrain is not None and "libraries" in spec.retrain.on


def find_library_changes(manifest: Manifest) -> Change | None:
    """Return which libraries that a version was trained with have other versions in this environment.

    What is not installed here says nothing of where the adapter would be trained.
    """
    fields: dict[str, tuple[JsonValue, JsonValue]] = {}
    for name, before in sorted(manifest.libraries.items()):
        now = _find_version(name)
        if name != _OWN_NAME and now is not None and now != before:
            fields[name] = (before, now)
    return Change("libraries", _list_values(fields), fields) if fields else None


def describe_changes(
    task: ResolvedTask, manifest: Manifest, *, data_digest: str | None = None
) -> dict[str, str]:
    """Return what :func:`find_changes` finds in words: part -> how it changed.

    Raises:
        BaseModelError: The base is not usable.
        InvalidDataError: The source is not there.
    """
    return {change.part: change.how for change in find_changes(task, manifest, data_digest=data_digest)}


def compare_recipes(before: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> str:
    """Return the fields that differ, with both values: ``train.learning_rate 0.001 -> 0.003``; "" if none do.

    Args:
        before: The recipe that a manifest holds.
        now: A task's recipe, as :meth:`~lorry_registry.tasks.task_spec.TaskSpec.describe_recipe` returns it.
    """
    return _list_values(_compare_fields(dict(flatten(before)), dict(flatten(now))))


def _compare_bases(before: BaseIdentity, now: BaseIdentity) -> Change | None:
    if before.fingerprint == now.fingerprint:
        return None
    fields: dict[str, tuple[JsonValue, JsonValue]] = {"fingerprint": (before.fingerprint, now.fingerprint)}
    how = _show_digests(before.fingerprint, now.fingerprint)
    if before.model != now.model:
        how, fields["model"] = f"{before.model} -> {now.model}", (before.model, now.model)
    elif before.revision != now.revision:
        former, present = (
            str(revision)[:_REVISION_CHARACTERS] for revision in (before.revision, now.revision)
        )
        how, fields["revision"] = f"revision {former} -> {present}", (before.revision, now.revision)
    return Change("base", how, fields)


def _compare_data(manifest: Manifest, task: ResolvedTask, data_digest: str | None) -> Change | None:
    before, now = manifest.inputs.source_digest, task.source_digest
    is_same = before == now or data_digest == manifest.inputs.data_digest
    return None if is_same else Change("data", _show_digests(before, now), {"digest": (before, now)})


def _compare_settings(manifest: Manifest, task: ResolvedTask) -> Change | None:
    resolved, spec = manifest.inputs.makeup, task.spec
    former = {**dict(flatten(manifest.recipe)), **resolved.defaults}
    present = write_out(spec)
    given = dict(flatten(spec.model_dump(mode="json", exclude_defaults=True)))
    # A field that only one of the two Lorries has says nothing, unless someone has set it.
    known = [
        name
        for name in {**former, **present}
        if (name in given or _is_known(name, former)) and (name in present or name not in resolved.defaults)
    ]
    fields = _compare_fields(former, present, known)
    return Change("recipe", _list_values(fields), fields) if fields else None


def _is_known(name: str, fields: Mapping[str, JsonValue]) -> bool:
    """Return whether a document has a field, or has none of the section that the field is in."""
    parts = name.split(".")
    return any(".".join(parts[:count]) in fields for count in range(1, len(parts) + 1))


def _compare_code(manifest: Manifest, spec: TaskSpec) -> Change | None:
    resolved = manifest.inputs.makeup
    # Of another method or task type the recipe tells.
    fields: dict[str, tuple[JsonValue, JsonValue]] = {
        name: (resolved.code[name], version)
        for name, version in list_code_versions(spec).items()
        if name in resolved.code and resolved.code[name] != version
    }
    return Change("code", _list_values(fields), fields) if fields else None


def _compare_fields(
    before: Mapping[str, JsonValue], now: Mapping[str, JsonValue], names: Iterable[str] | None = None
) -> dict[str, tuple[JsonValue, JsonValue]]:
    compared = {**before, **now} if names is None else names
    return {
        _name_field(name): (before.get(name), now.get(name))
        for name in compared
        if before.get(name) != now.get(name)
    }


def _list_values(fields: Mapping[str, tuple[JsonValue, JsonValue]]) -> str:
    return ", ".join(_describe_fields(fields))


def _describe_fields(fields: Mapping[str, tuple[JsonValue, JsonValue]]) -> Iterator[str]:
    for name, (before, now) in list(fields.items())[:_LISTED]:
        yield f"{name} {_show(before)} -> {_show(now)}"
    if len(fields) > _LISTED:
        yield f"and {len(fields) - _LISTED} more"


def _name_field(name: str) -> str:
    # As a task file has it, where options stand beside the method's name.
    return "evaluate.primary" if name == "primary" else name.replace("method.options.", "method.", 1)


def _show(value: JsonValue) -> str:
    if value is None:
        return "the default"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _show_digests(before: str, now: str) -> str:
    return f"{shorten_digest(before, 8)} -> {shorten_digest(now, 8)}"


def _find_version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
