"""The JSON Schema of a task file, by which editors complete and check it.

It holds what each field takes by itself, kinds, methods and their options included. Rules that concern
several fields at once are for ``lorry validate``.
"""

import inspect
import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from lorry_components.methods import METHODS
from lorry_components.task_types import TASK_TYPES
from lorry_registry.tasks.task_spec import TaskSpec

SCHEMA_NAME = "task.schema.json"
"""The name of the file beside the task files that :func:`describe_task_file` is written to."""
EDITOR_LINE = f"# yaml-language-server: $schema={SCHEMA_NAME}"
"""The first line of a task file, by which editors find its schema, without a network."""

_ATTRIBUTES = re.compile(r"^Attributes:\n(.*?)(?:\n\n|\Z)", re.DOTALL | re.MULTILINE)
_ATTRIBUTE = re.compile(r"^    (\w+): (.*?)(?=^    \w|\Z)", re.DOTALL | re.MULTILINE)


class _DescribedFields(GenerateJsonSchema):
    """Describes each field as its model's docstring does; an editor shows that beside it."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        document = super().model_schema(schema)
        document["description"] = document.get("description", "").partition("\n\nAttributes:")[0]
        described = _describe_fields(schema["cls"])
        for name, field in document.get("properties", {}).items():
            if name in described:
                field["description"] = described[name]
        return document


def _describe_fields(model: type[BaseModel]) -> dict[str, str]:
    """Return what the docstrings of a model and its bases say of its fields."""
    described = {}
    for each in reversed(model.__mro__):
        section = _ATTRIBUTES.search(inspect.cleandoc(each.__doc__ or "") + "\n")
        for name, text in _ATTRIBUTE.findall(section[1] if section else ""):
            # A file has no None: it leaves the field out.
            described[name] = " ".join(text.split()).replace("None: ", "left out: ")
    return described


def describe_task_file() -> dict[str, Any]:
    """Return the JSON Schema of a task file."""
    models = {name: method.options_model for name, method in METHODS.items()}
    references, document = models_json_schema(
        [(TaskSpec, "validation"), *((model, "validation") for model in models.values())],
        schema_generator=_DescribedFields,
    )
    definitions: dict[str, Any] = document["$defs"]
    task = definitions.pop(references[TaskSpec, "validation"]["$ref"].rpartition("/")[2])
    task["properties"]["kind"]["enum"] = list(TASK_TYPES)
    # A class may be named by a number, which becomes its text.
    definitions["EvaluateSpec"]["properties"]["positive"]["anyOf"].append({"type": "number"})
    options = {
        name: definitions[references[model, "validation"]["$ref"].rpartition("/")[2]]
        for name, model in models.items()
    }
    definitions["MethodSpec"] = _describe_methods(definitions["MethodSpec"], options)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **task,
        "title": "A task of Lorry",
        "$defs": definitions,
    }


def _describe_methods(section: dict[str, Any], options: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of the method section, where options stand beside the method's name."""
    own = section["properties"]
    return {
        **section,
        "properties": {**own, "name": {**own["name"], "enum": list(options)}},
        "additionalProperties": True,
        "allOf": [
            {
                "if": {"properties": {"name": {"const": name}}},
                "then": {
                    "properties": {**dict.fromkeys(own, True), **each.get("properties", {})},
                    "required": each.get("required", []),
                    "additionalProperties": False,
                },
            }
            for name, each in options.items()
        ],
    }
