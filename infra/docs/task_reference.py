"""The reference of the task file, from its JSON Schema, the task types and the methods."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mkdocs.exceptions import Abort

from lorry_components.methods import METHODS, Method
from lorry_components.task_types import TASK_TYPES
from lorry_components.tasks.json_schema import describe_task_file

_FIELDS_HEADING = ("| field | takes | default | what |", "|---|---|---|---|")
_TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true`, `false`",
    "object": "names and values",
}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "gt": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_CODE = re.compile(r"``([^`]+)``")


def list_kinds() -> Iterator[str]:
    """Yield the table of the kinds of tasks, with their metrics."""
    yield "| kind | what is predicted | metrics, the primary one first | only if a task names them |"
    yield "|---|---|---|---|"
    for kind in TASK_TYPES.values():
        named = [name for name in kind.metrics if name in kind.optional_metrics]
        others = [name for name in kind.metrics if name not in (kind.primary, *named)]
        yield f"| `{kind.name}` | {kind.summary} | {_quote([kind.primary, *others])} | {_quote(named)} |"


def list_fields(section: str) -> Iterator[str]:
    """Yield the table of a section's fields; of the whole file's own, if no section is named.

    Raises:
        Abort: There is no such section.
    """
    schema = describe_task_file()
    definitions = schema["$defs"]
    if section and section not in schema["properties"]:
        raise Abort(f"a task file has no section {section!r}")
    model = _resolve(schema["properties"][section], definitions) if section else schema
    yield from _FIELDS_HEADING
    for name, field in model["properties"].items():
        # Options stand beside a method's name, and not below a key of their own.
        if (section, name) != ("method", "options"):
            yield from _describe_field(name, field, model, definitions, is_nested=bool(section))


def list_methods() -> Iterator[str]:
    """Yield the methods: a table of all, and one of each method's options."""
    section = describe_task_file()["$defs"]["MethodSpec"]
    yield "| method | what is trained | learning rate |"
    yield "|---|---|---|"
    for method in METHODS.values():
        yield f"| [`{method.name}`](#{method.name}) | {method.summary} | {_describe_rate(method)} |"
    for each in section["allOf"]:
        name, options = each["if"]["properties"]["name"]["const"], each["then"]
        own = {key: field for key, field in options["properties"].items() if field is not True}
        yield f"\n### {name}\n"
        yield f"{METHODS[name].summary}\n"
        if own:
            yield _FIELDS_HEADING[0].replace("field", "option")
            yield _FIELDS_HEADING[1]
        for key, field in own.items():
            yield from _describe_field(key, field, options, {}, is_nested=True)


def _describe_rate(method: type[Method]) -> str:
    if not method.trains_in_steps:
        return ""
    rate = f"{method.learning_rate:.0e}".replace("e-0", "e-")
    return f"{rate} w" if method.learns_matrices else rate


def _describe_field(
    name: str,
    field: Mapping[str, Any],
    model: Mapping[str, Any],
    definitions: Mapping[str, Any],
    *,
    is_nested: bool,
) -> Iterator[str]:
    below = _resolve(field, definitions)
    takes = _describe_type(field)
    default = "required" if name in model.get("required", ()) else _describe_default(field.get("default"))
    what = _CODE.sub(r"`\1`", field["description"]).replace("|", "\\|")
    yield f"| `{name}` | {takes} | {default} | {what} |"
    # The file's own sections have tables of their own.
    if is_nested:
        for inner, each in below.get("properties", {}).items():
            yield from _describe_field(f"{name}.{inner}", each, below, definitions, is_nested=True)


def _resolve(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the section that a field holds, one or a list of them; otherwise an empty one."""
    for each in field.get("anyOf", [field]):
        reference = each.get("items", each).get("$ref")
        if reference is not None:
            found: Mapping[str, Any] = definitions[reference.rpartition("/")[2]]
            return found
    return {}


def _describe_type(field: Mapping[str, Any]) -> str:
    variants = [each for each in field.get("anyOf", [field]) if each.get("type") != "null"]
    described = dict.fromkeys(_describe_variant(each) for each in variants)
    return " or ".join(described)


def _describe_variant(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return "section"
    if "enum" in field or "const" in field:
        return _quote(map(_write_value, field.get("enum", [field.get("const")])))
    if field.get("type") == "array":
        items = field.get("items", {})
        return "list of sections" if "$ref" in items else f"list of {_describe_type(items)}"
    bounds = " and ".join(f"{sign} {field[key]:g}" for key, sign in _BOUNDS.items() if key in field)
    return f"{_TYPES[field['type']]} {bounds}".strip()


def _describe_default(value: Any) -> str:
    if value is None or value in ("", [], {}) or isinstance(value, dict):
        return ""
    return f"`{_write_value(value)}`"


def _write_value(value: Any) -> str:
    written = json.dumps(value, ensure_ascii=False)
    return written[1:-1] if isinstance(value, str) else written


def _quote(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`".replace("|", "\\|") for name in names)
