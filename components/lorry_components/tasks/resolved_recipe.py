"""The inputs of an adapter beside base and data: the recipe in full, and the versions of the code.

A task file leaves much to defaults, and a later Lorry may have others. So an adapter keeps, beside its recipe
as the task has it, the value of each default at the time, and the two are compared as one: a changed default
is a change, and writing out a default is none.
"""

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, JsonValue
from pydantic_core import to_jsonable_python

from lorry_components.methods import METHODS
from lorry_components.task_types import TASK_TYPES
from lorry_components.tasks.code_versions import list_code_versions
from lorry_components.tasks.definition import find_task_type, read_options
from lorry_components.training.setup.head_rate import FITTED_HEAD_RATE
from lorry_components.training.setup.length import LEAST_STEPS
from lorry_registry.files.digests import digest_document
from lorry_registry.manifest import ResolvedRecipe
from lorry_registry.tasks.task_spec import DRAWING_FIELDS, TaskSpec

_NO_DATA_FIELDS = ("source", "revision")


def resolve_recipe(spec: TaskSpec, *, start: str | None = None) -> ResolvedRecipe:
    """Return what an adapter of a checked task would be made of now.

    Args:
        spec: The task.
        start: The adapter that training goes on from; None: it begins with the base alone.
    """
    settings, code = write_out(spec), list_code_versions(spec)
    said = dict(flatten(spec.describe_recipe()))
    defaults = {name: value for name, value in settings.items() if name not in said or said[name] != value}
    return ResolvedRecipe(
        digest=digest_document({"settings": settings, "code": code, **({"start": start} if start else {})}),
        defaults=defaults,
        code=code,
        start=start,
    )


def write_out(spec: TaskSpec) -> dict[str, JsonValue]:
    """Return the recipe of a checked task with every default written out: dotted name -> value."""
    options = read_options(spec.method).options
    document: dict[str, JsonValue] = {
        "kind": spec.kind,
        "data": _list_fields(spec.data, _NO_DATA_FIELDS),
        "method": {
            **_list_fields(spec.method, ("options",)),
            "options": {} if options is None else options.model_dump(mode="json"),
        },
        "train": _list_fields(spec.train),
        "generate": _list_fields(spec.generate, () if _draws(spec) else DRAWING_FIELDS),
    }
    if spec.head is not None:
        document["head"] = _list_fields(spec.head)
    settings = dict(flatten(document))
    if spec.train.epochs is None and spec.train.steps is None and METHODS[spec.method.name].trains_in_steps:
        settings["train.least_steps"] = LEAST_STEPS
    if spec.train.learning_rate is None:
        settings["train.learning_rate"] = METHODS[spec.method.name].learning_rate
    if spec.head is not None and spec.head.init == "probe" and spec.head.learning_rate is None:
        settings["head.highest_learning_rate"] = FITTED_HEAD_RATE
    if spec.train.early_stopping is not None:
        settings["primary"] = spec.evaluate.primary or TASK_TYPES[spec.kind].primary
        settings["positive"] = spec.evaluate.positive
    return settings


def flatten(value: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Yield the values of a nested document by their dotted names."""
    for name, part in value.items():
        if isinstance(part, dict):
            yield from flatten(part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", part


def _list_fields(section: BaseModel, without: tuple[str, ...] = ()) -> dict[str, JsonValue]:
    """Return all fields of a section, those too that its own document leaves out."""
    fields: dict[str, JsonValue] = {}
    for name in type(section).model_fields:
        if name not in without:
            value = getattr(section, name)
            fields[name] = _list_fields(value) if isinstance(value, BaseModel) else to_jsonable_python(value)
    return fields


def _draws(spec: TaskSpec) -> bool:
    return find_task_type(spec).match_family(text=lambda _: False, diffusion=lambda _: True)
