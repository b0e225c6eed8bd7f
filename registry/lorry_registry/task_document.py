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
    where = str(path)
    try:
        raw = path.read_bytes()
        if len(raw) > _MAX_BYTES:
            raise InvalidTaskError(where, [Fault("file", f"{len(raw)} bytes are too many for a task file")])
        node = yaml.compose(raw.decode("utf-8"), Loader=yaml.SafeLoader)
        content = yaml.safe_load(raw)
    except FileNotFoundError as error:
        raise InvalidTaskError(
            where, [Fault("file", "there is no such file")], todo=_suggest_files(path)
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidTaskError(where, [Fault("file", f"cannot be read as text: {error}")]) from error
    except yaml.YAMLError as error:
        raise InvalidTaskError(where, [Fault("file", f"not YAML: {error}")]) from error
    except ValueError as error:
        # YAML's dates and numbers are built by Python, which refuses 2024-13-45 in its own way.
        raise InvalidTaskError(where, [Fault("file", f"a value cannot be read: {error}")]) from error
    except RecursionError as error:
        raise InvalidTaskError(where, [Fault("file", "it is nested too deeply to be a task")]) from error
    if not isinstance(content, dict) or not isinstance(node, yaml.MappingNode):
        raise InvalidTaskError(
            where, [Fault("file", "a task is a mapping of fields, such as 'name: reviews'")]
        )
    lines: dict[str, int] = {}
    repeated = list(_walk(node, "", lines, set()))
    if repeated:
        raise InvalidTaskError(where, repeated, todo="keep one of each")
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
            raise UsageError(f"{text!r} is not a YAML value: {error}", where=f"--set {field}") from error
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
    beside = [entry.name for entry in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    return f"{suggest_name(path.name, beside)}" if beside else "give the path of a task's YAML file"


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
