"""From a YAML file to a task; all faults are reported at once, each with its line, field and remedy.

What a method's options mean is not known here: :func:`load_task` takes further checks from the layers above,
so that an invalid rank and an invalid learning rate are in the same message.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from lorry_registry.errors import Fault, InvalidTaskError, InvalidValueError, describe_value_error
from lorry_registry.tasks.base_places import BasePlace
from lorry_registry.tasks.task_document import apply_overrides, load_document, suggest_name
from lorry_registry.tasks.task_sections import TaskSections, salvage_sections
from lorry_registry.tasks.task_spec import TaskSpec
from lorry_registry.text.scrubbing import scrub_text

Check = Callable[[TaskSections], Iterable[Fault]]


# What to write where a section is missing, or something else stands in its place.
_EXAMPLES: Mapping[int | str, str] = {
    "name": "write name: reviews",
    "kind": "write kind: text-classification",
    "base": "write base: {model: MODEL}, a folder or a hub id with its revision",
    "data": "write data: {source: reviews.csv}",
    "method": "write method: {name: lora}",
}
_NO_SECTION = frozenset({"model_type", "model_attributes_type", "dict_type"})


def load_task(path: Path, *, overrides: Sequence[str] = (), checks: Sequence[Check] = ()) -> TaskSpec:
    """Read a task file.

    Args:
        path: The YAML file. A relative ``data.source`` or folder in it is taken from the file's folder.
        overrides: Settings such as ``method.r=16``, each parsed as YAML.
        checks: Further checks, whose faults are reported together with those of single fields.

    Raises:
        InvalidTaskError: The file is missing, not YAML, or has faults; all are listed, with their lines.
    """
    loaded = load_document(path)
    document = apply_overrides(loaded.content, overrides, where=str(path))
    return parse_task(document, where=str(path), folder=path.parent, checks=checks, lines=loaded.lines)


def parse_task(
    document: Mapping[str, Any],
    *,
    where: str,
    folder: Path,
    checks: Sequence[Check] = (),
    lines: Mapping[str, int] | None = None,
) -> TaskSpec:
    """Turn a document into a task.

    Args:
        document: The content of a task file.
        where: The name of the document in error messages.
        folder: The folder that relative paths are taken from.
        checks: Further checks.
        lines: The line of each field in the document, by dotted name.

    Raises:
        InvalidTaskError: The document has faults; all are listed.
    """
    spec, faults = inspect_document(document, checks)
    if spec is None or faults:
        numbered = (replace(fault, line=_find_line(fault.where, lines or {})) for fault in faults)
        ordered = sorted(dict.fromkeys(numbered), key=lambda fault: (fault.line or 0, fault.where))
        raise InvalidTaskError(where, ordered, todo="correct these fields and try again")
    anchored, unusable = _anchor_paths(spec, folder)
    if unusable:
        placed = [replace(fault, line=_find_line(fault.where, lines or {})) for fault in unusable]
        raise InvalidTaskError(where, placed, todo="correct these fields and try again")
    return anchored


def place_base(spec: TaskSpec, place: BasePlace) -> TaskSpec:
    """Return the same task, whose base is found in a place if it has a logical name."""
    return spec.model_copy(update={"base": spec.base.find_in(place)})


def inspect_document(
    document: Mapping[str, Any], checks: Sequence[Check] = ()
) -> tuple[TaskSpec | None, list[Fault]]:
    """Validate a document once and run further checks on its typed sections.

    Returns:
        The task, with paths as they are written, or None if a field is invalid; and all faults. A valid task
        may have faults as well, those of the further checks.
    """
    try:
        spec = TaskSpec.model_validate(document)
    except ValidationError as error:
        details = error.errors()
        faults = [_describe_field(detail, document) for detail in details]
        sections = salvage_sections(document, [detail["loc"] for detail in details])
        invalid = {fault.where for fault in faults if "." in fault.where}
        further = [fault for check in checks for fault in check(sections)]
        # An invalid field has its fault. Another one would be about the default in its place.
        return None, [*faults, *(fault for fault in further if not _is_within(fault.where, invalid))]
    sections = TaskSections.of(spec)
    return spec, [fault for check in checks for fault in check(sections)]


def describe_fault(detail: Any) -> Fault:
    """Turn one error of pydantic's into a fault."""
    where = ".".join(str(part) for part in detail["loc"]) or "task"
    kind, message, given = detail["type"], detail["msg"], detail.get("input")
    if kind == "extra_forbidden":
        return Fault(where, "there is no such field")
    if kind == "missing":
        return Fault(where, "is missing")
    raised = detail.get("ctx", {}).get("error")
    shown = "" if isinstance(given, dict | list) else scrub_text(f" (it is {given!r})")
    remedy = ""
    if isinstance(raised, InvalidValueError):
        message, remedy = raised.what, raised.remedy
    message = message.removeprefix("Value error, ")
    return Fault(where, message[0].lower() + message[1:] + shown, remedy)


def _describe_field(detail: Any, document: Mapping[str, Any]) -> Fault:
    place = detail["loc"]
    if place[:2] == ("method", "options") and len(place) > 2:
        # Where the document has the option, and without the types that pydantic tried on it.
        is_below = "options" in document["method"]
        detail = detail | {"loc": place[:3] if is_below else ("method", place[2])}
    fault = describe_fault(detail)
    example = _EXAMPLES.get(place[0], "") if len(place) == 1 else ""
    if detail["type"] == "missing":
        return replace(fault, remedy=example)
    if detail["type"] in _NO_SECTION:
        return Fault(fault.where, f"is {detail['input']!r}, not a section with fields", example)
    if detail["type"] == "extra_forbidden":
        return replace(fault, remedy=suggest_name(str(place[-1]), _list_fields(TaskSpec, place[:-1])))
    return fault


def _list_fields(section: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """Return the fields of the section at a place below another; none, if no section is there."""
    for part in place:
        if isinstance(part, int):
            # The entry of a list: its class is that of the field.
            continue
        field = section.model_fields.get(part)
        inner = _find_model(field.annotation) if field is not None else None
        if inner is None:
            return []
        section = inner
    return list(section.model_fields)


def _find_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model in an annotation such as ``Columns | None`` or ``tuple[Toleration, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_find_model, get_args(annotation))), None)


def _is_within(field: str, fields: Collection[str]) -> bool:
    return any(field == other or field.startswith(f"{other}.") for other in fields)


def _anchor_paths(spec: TaskSpec, folder: Path) -> tuple[TaskSpec, list[Fault]]:
    changes: dict[str, Any] = {}
    faults: list[Fault] = []
    paths = {
        ("data", "source"): spec.data.source if spec.data.is_local else None,
        ("base", "model"): spec.base.model if spec.base.is_folder else None,
    }
    for (section, field), path in paths.items():
        if path is None:
            continue
        try:
            anchored = _anchor(path, folder)
        except InvalidValueError as error:
            faults.append(describe_value_error(error, f"{section}.{field}"))
        else:
            changes[section] = getattr(spec, section).model_copy(update={field: anchored})
    return spec.model_copy(update=changes), faults


def _anchor(path: str, folder: Path) -> str:
    try:
        return str((folder / Path(path).expanduser()).resolve())
    except (OSError, RuntimeError, ValueError) as error:
        # A null character, the home of a user that does not exist, links in a circle.
        raise InvalidValueError(f"{path!r} is not a path: {error}", "name a file or a folder") from error


def _find_line(field: str, lines: Mapping[str, int]) -> int | None:
    while field and field not in lines:
        field = field.rpartition(".")[0]
    return lines.get(field)
