"""From a YAML file to a task; every fault is reported at once, with its line and field.

What a method's options mean is not known here: :func:`load_task` takes further checks from the layers above,
so that a wrong rank and a wrong learning rate are told in the same message.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lorry_registry.errors import Fault, InvalidTaskError
from lorry_registry.task_document import apply_overrides, load_document
from lorry_registry.task_spec import TaskSpec

Check = Callable[[Mapping[str, Any]], Iterable[Fault]]


def load_task(path: Path, *, overrides: Sequence[str] = (), checks: Sequence[Check] = ()) -> TaskSpec:
    """Read a task file.

    Args:
        path: The YAML file. A relative ``data.source`` or folder in it is taken from the file's folder.
        overrides: Settings such as ``method.r=16``, each parsed as YAML.
        checks: Further checks of the document, whose faults are told together with the model's.

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
        checks: Further checks of the document.
        lines: The line of each field in the document, by dotted name.

    Raises:
        InvalidTaskError: The document has faults; all are listed.
    """
    faults: list[Fault] = []
    spec: TaskSpec | None = None
    try:
        spec = TaskSpec.model_validate(document)
    except ValidationError as error:
        faults.extend(describe_fault(detail) for detail in error.errors())
    for check in checks:
        faults.extend(check(document))
    if spec is None or faults:
        numbered = [_add_line(fault, lines or {}) for fault in _order_faults(faults, lines or {})]
        raise InvalidTaskError(where, numbered, todo="correct these fields and try again")
    return _anchor_paths(spec, folder)


def _anchor_paths(spec: TaskSpec, folder: Path) -> TaskSpec:
    changes: dict[str, Any] = {}
    if spec.data.is_local:
        source = (folder / Path(spec.data.source).expanduser()).resolve()
        changes["data"] = spec.data.model_copy(update={"source": str(source)})
    if spec.base.is_folder:
        model = (folder / Path(spec.base.model).expanduser()).resolve()
        changes["base"] = spec.base.model_copy(update={"model": str(model)})
    return spec.model_copy(update=changes)


def describe_fault(detail: Any) -> Fault:
    """Turn one error of pydantic's into a fault in our words."""
    where = ".".join(str(part) for part in detail["loc"]) or "task"
    kind, message, given = detail["type"], detail["msg"], detail.get("input")
    if kind == "extra_forbidden":
        return Fault(where, "there is no such field")
    if kind == "missing":
        return Fault(where, "is missing")
    message = message.removeprefix("Value error, ")
    shown = "" if isinstance(given, dict | list) else f" (it is {given!r})"
    return Fault(where, message[0].lower() + message[1:] + shown)


def _order_faults(faults: Iterable[Fault], lines: Mapping[str, int]) -> list[Fault]:
    return sorted(dict.fromkeys(faults), key=lambda fault: (_find_line(fault.where, lines) or 0, fault.where))


def _add_line(fault: Fault, lines: Mapping[str, int]) -> Fault:
    line = _find_line(fault.where, lines)
    return Fault(f"line {line}, {fault.where}" if line else fault.where, fault.what)


def _find_line(field: str, lines: Mapping[str, int]) -> int | None:
    while field and field not in lines:
        field = field.rpartition(".")[0]
    return lines.get(field)
