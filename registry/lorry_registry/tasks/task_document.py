"""YAML in and out of plain documents: lines for error messages, overrides from the command line."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lorry_registry.errors import (
    Fault,
    InvalidTaskError,
    InvalidValueError,
    UsageError,
    describe_value_error,
)

_MAX_BYTES = 1 << 20
_MAX_SUGGESTED = 40
_MAX_REPEATED = 10_000
_TODO = "correct the file and try again"


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a YAML file, and the line of each field, by dotted name."""

    content: dict[str, Any]
    lines: dict[str, int]


def load_document(path: Path) -> Document:
    """Read one YAML mapping.

    The file is parsed once: its lines and its content are taken from the same tree of nodes.

    Raises:
        InvalidTaskError: The file is missing, no text, larger than 1 MiB, not one YAML mapping, gives a key
            twice, or its aliases repeat more than 10,000 values.
    """

    def refuse(fault: Fault, todo: str = _TODO) -> InvalidTaskError:
        return InvalidTaskError(str(path), [fault], todo=todo)

    try:
        raw = path.read_bytes()
        if len(raw) > _MAX_BYTES:
            raise refuse(Fault("file", f"{len(raw):,} bytes are too many for a task file"))
        loader = yaml.SafeLoader(raw.decode("utf-8"))
        node = _compose(loader)
        if not isinstance(node, yaml.MappingNode):
            raise refuse(Fault("file", "a task is a mapping of fields, such as 'name: reviews'"))
        lines: dict[str, int] = {}
        # Before the content: building it puts merged keys (<<) beside a mapping's own.
        repeated = list(_list_lines(node, "", lines, set()))
        content: dict[str, Any] = loader.construct_document(node)
    except FileNotFoundError as error:
        raise refuse(Fault("file", "there is no such file"), todo=_suggest_files(path)) from error
    except IsADirectoryError as error:
        raise refuse(Fault("file", "it is a folder"), todo=f"name its task files: {path}/*.yaml") from error
    except OSError as error:
        raise refuse(Fault("file", f"cannot be read: {error.strerror or error}")) from error
    except UnicodeDecodeError as error:
        fault = Fault("file", f"cannot be read as text: {error}")
        raise refuse(fault, todo="save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise refuse(_describe_problem(error)) from error
    except InvalidValueError as error:
        raise refuse(describe_value_error(error, "file")) from error
    except ValueError as error:
        # YAML's dates and numbers are built by Python, which refuses 2024-13-45 in its own words.
        raise refuse(Fault("file", f"a value cannot be read: {error}")) from error
    except RecursionError as error:
        raise refuse(Fault("file", "it is nested too deeply to be a task")) from error
    if repeated:
        raise InvalidTaskError(str(path), repeated, todo="keep one of each")
    return Document(content, lines)


def parse_value(text: str) -> Any:
    """Return the value of a piece of YAML from the command line.

    Raises:
        ValueError: It is not a YAML value; the message says why.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = _compose(loader)
        return None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def apply_overrides(document: Mapping[str, Any], overrides: Sequence[str], *, where: str) -> dict[str, Any]:
    """Return a document with settings such as ``method.r=16`` applied, each value parsed as YAML.

    Raises:
        UsageError: A setting is not of the form FIELD=VALUE, or a part of the field is not a mapping.
    """
    changed = dict(document)
    for override in overrides:
        field, separator, text = override.partition("=")
        if not separator or not all(field.split(".")):
            raise UsageError(
                f"{override!r} is not of the form FIELD=VALUE",
                where=f"{where}, --set",
                todo="write --set method.r=16",
            )
        try:
            value = parse_value(text)
        except ValueError as error:
            raise UsageError(
                f"{text!r} is not a YAML value: {error}",
                where=f"--set {field}",
                todo=f"put text that YAML would read as something else in quotes: --set '{field}=\"...\"'",
            ) from error
        *parents, last = field.split(".")
        section = changed
        for parent in parents:
            below = section.get(parent, {})
            if not isinstance(below, dict):
                raise UsageError(
                    f"{parent!r} is not a section",
                    where=f"{where}, --set {field}",
                    todo="give the whole section: --set 'SECTION={FIELD: VALUE}'",
                )
            # A copy: by an alias, the same section may be elsewhere in the document as well.
            section[parent] = dict(below)
            section = section[parent]
        section[last] = value
    return changed


def suggest_name(wrong: str, known: Iterable[str]) -> str:
    """Return "did you mean 'lora'?" when a known name is close, and what is known otherwise."""
    names = sorted(known)
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    unlisted = len(names) - _MAX_SUGGESTED
    listed = ", ".join(names[:_MAX_SUGGESTED]) or "none"
    return f"known are {listed} and {unlisted:,} more" if unlisted > 0 else f"known are {listed}"


def _suggest_files(path: Path) -> str:
    beside = list(path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    # By the stem: a shared ending makes all names look alike.
    close = difflib.get_close_matches(path.stem, [entry.stem for entry in beside], n=1, cutoff=0.5)
    if close:
        return f"did you mean {next(entry.name for entry in beside if entry.stem == close[0])!r}?"
    return "give the path of a task's YAML file"


def _compose(loader: yaml.SafeLoader) -> yaml.Node | None:
    """Parse a document into nodes, of which aliases share some."""
    node: yaml.Node | None = loader.get_single_node()
    if node is not None:
        _refuse_expansion(node)
    return node


def _refuse_expansion(root: yaml.Node) -> None:
    """Refuse a document whose aliases expand to far more values than the file contains.

    A few hundred bytes of nested aliases expand to billions of values. In memory each exists once, but
    validation, and all else that walks the content, visits all of them.

    Raises:
        InvalidValueError: There are more than 10,000 repeated values. A value that contains itself is counted
            once on each path.
    """
    visited: set[int] = set()
    count = 0

    def walk(node: yaml.Node, path: frozenset[int]) -> None:
        nonlocal count
        if id(node) in visited:
            count += 1
            if count > _MAX_REPEATED:
                raise InvalidValueError(
                    f"its aliases repeat more than {_MAX_REPEATED:,} values", "write out what is meant"
                )
        visited.add(id(node))
        if id(node) in path or isinstance(node, yaml.ScalarNode):
            return
        below = path | {id(node)}
        for child in _list_children(node):
            walk(child, below)

    walk(root, frozenset())


def _list_children(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _describe_problem(error: yaml.YAMLError) -> Fault:
    if not isinstance(error, yaml.MarkedYAMLError):
        return Fault("file", f"not YAML: {str(error).partition(chr(10))[0]}")
    what = "; ".join(part for part in (error.context, error.problem) if part)
    if error.problem_mark is None:
        return Fault("file", f"not YAML: {what}")
    mark = error.problem_mark
    return Fault(f"column {mark.column + 1}", f"not YAML: {what}", line=mark.line + 1)


def _list_lines(
    node: yaml.MappingNode, prefix: str, lines: dict[str, int], walked: set[int]
) -> Iterable[Fault]:
    """Note the line of each field; yield those that are given twice."""
    # An alias is the same node again; it may even lie inside itself.
    walked.add(id(node))
    for key, value in node.value:
        field = f"{prefix}{key.value}"
        line = key.start_mark.line + 1
        if field in lines:
            yield Fault(field, f"was given already on line {lines[field]}", line=line)
        lines[field] = line
        if isinstance(value, yaml.MappingNode) and id(value) not in walked:
            yield from _list_lines(value, f"{field}.", lines, walked)
