"""YAML in and out of plain documents: lines for error messages, overrides from the command line."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lorry_registry.errors import Fault, InvalidTaskError, UsageError

_MAX_BYTES = 1 << 20
_TODO = "correct the file and try again"


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a YAML file, and the line on which each field stands, by dotted name."""

    content: dict[str, Any]
    lines: dict[str, int]


def load_document(path: Path) -> Document:
    """Read one YAML mapping.

    Raises:
        InvalidTaskError: No such file, not text, over 1 MiB, not one YAML mapping, or a key given twice.
    """

    def refuse(what: str, place: str = "file", todo: str = _TODO) -> InvalidTaskError:
        return InvalidTaskError(str(path), [Fault(place, what)], todo=todo)

    try:
        raw = path.read_bytes()
        if len(raw) > _MAX_BYTES:
            raise refuse(f"{len(raw):,} bytes are too many for a task file")
        node = yaml.compose(raw.decode("utf-8"), Loader=yaml.SafeLoader)
        content = yaml.safe_load(raw)
    except FileNotFoundError as error:
        raise refuse("there is no such file", todo=_suggest_files(path)) from error
    except IsADirectoryError as error:
        raise refuse("it is a folder", todo=f"name its task files: {path}/*.yaml") from error
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise refuse(f"cannot be read as text: {error}", todo="save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise refuse(f"not YAML: {_describe_problem(error)}", place=_place_problem(error)) from error
    except ValueError as error:
        # YAML's dates and numbers are built by Python, which refuses 2024-13-45 in its own way.
        raise refuse(f"a value cannot be read: {error}") from error
    except RecursionError as error:
        raise refuse("it is nested too deeply to be a task") from error
    if not isinstance(content, dict) or not isinstance(node, yaml.MappingNode):
        raise refuse("a task is a mapping of fields, such as 'name: reviews'")
    lines: dict[str, int] = {}
    repeated = list(_walk(node, "", lines, set()))
    if repeated:
        raise InvalidTaskError(str(path), repeated, todo="keep one of each")
    return Document(content, lines)


def apply_overrides(document: Mapping[str, Any], overrides: Sequence[str], *, where: str) -> dict[str, Any]:
    """Return a document with settings such as ``method.r=16`` applied, each value parsed as YAML.

    Raises:
        UsageError: A setting is not of the form FIELD=VALUE, or a part of the field is not a mapping.
    """
    changed = deepcopy(dict(document))
    for override in overrides:
        field, separator, text = override.partition("=")
        if not separator or not all(field.split(".")):
            raise UsageError(f"{override!r} is not of the form FIELD=VALUE", todo="write --set method.r=16")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(
                f"{text!r} is not a YAML value: {error}",
                where=f"--set {field}",
                todo=f"put text that YAML would read otherwise in quotes of its own: --set '{field}=\"...\"'",
            ) from error
        *parents, last = field.split(".")
        section = changed
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise UsageError(f"{parent!r} is not a section", where=f"{where}, --set {field}")
        section[last] = value
    return changed


def suggest_name(wrong: str, known: Iterable[str]) -> str:
    """Return "did you mean 'lora'?" when a known name is close, and what is known otherwise."""
    names = sorted(known)
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names) or 'none'}"


def _suggest_files(path: Path) -> str:
    beside = list(path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    # By the stem: a shared ending makes all names look alike.
    close = difflib.get_close_matches(path.stem, [entry.stem for entry in beside], n=1, cutoff=0.5)
    if close:
        return f"did you mean {next(entry.name for entry in beside if entry.stem == close[0])!r}?"
    return "give the path of a task's YAML file"


def _describe_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        return "; ".join(part for part in (error.context, error.problem) if part)
    return str(error).partition("\n")[0]


def _place_problem(error: yaml.YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "file"


def _walk(node: yaml.MappingNode, prefix: str, lines: dict[str, int], walked: set[int]) -> Iterable[Fault]:
    # An alias is the same node again; it may even lie inside itself.
    walked.add(id(node))
    for key, value in node.value:
        field = f"{prefix}{key.value}"
        line = key.start_mark.line + 1
        if field in lines:
            yield Fault(f"line {line}, {field}", f"was given already on line {lines[field]}")
        lines[field] = line
        if isinstance(value, yaml.MappingNode) and id(value) not in walked:
            yield from _walk(value, f"{field}.", lines, walked)
