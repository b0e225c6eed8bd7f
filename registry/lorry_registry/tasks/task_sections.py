"""The sections of a task document as typed models, each as far as it is valid.

Some rules concern several fields: a metric that the task type does not have, a template that does not suit
the data. They are checked on typed sections, not on raw YAML. Since all faults of a document are reported at
once, a document with an invalid field needs typed sections as well: :func:`salvage_sections` takes invalid
fields out and reads what is left, field by field. The result is for checks only; nothing is trained from it.
"""

import contextlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from lorry_registry.tasks.input_specs import DataSpec
from lorry_registry.tasks.task_spec import (
    EvaluateSpec,
    GateSpec,
    GenerateSpec,
    HeadSpec,
    MethodSpec,
    TaskSpec,
    TrainSpec,
    gather_options,
)

_Section = TypeVar("_Section", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class TaskSections:
    """The sections to which rules apply that concern several fields.

    ``model_fields_set`` of a section contains the fields that the document has. In sections of an invalid
    document, invalid fields have their default values, and required ones are "".

    Attributes:
        kind: The name of the task type; None if it is missing or no text.
        data: The data section; None if it is missing or no mapping. So are the others.
        method: The method section; None also if the method has no name.
        train: The train section.
        generate: The generate section.
        evaluate: The evaluate section.
        gate: The gate section.
        head: The head section; None also if there is none.
    """

    kind: str | None
    data: DataSpec | None
    method: MethodSpec | None
    train: TrainSpec | None
    generate: GenerateSpec | None
    evaluate: EvaluateSpec | None
    gate: GateSpec | None = None
    head: HeadSpec | None = None

    @classmethod
    def of(cls, spec: TaskSpec) -> Self:
        """Return the sections of a valid task."""
        return cls(
            spec.kind,
            spec.data,
            spec.method,
            spec.train,
            spec.generate,
            spec.evaluate,
            gate=spec.gate,
            head=spec.head,
        )


def salvage_sections(document: Mapping[str, Any], invalid: Sequence[tuple[int | str, ...]]) -> TaskSections:
    """Return the sections of a document without its invalid fields.

    Args:
        document: The content of a task file.
        invalid: The places of the invalid fields, as pydantic gives them.
    """
    sound = deepcopy(dict(document))
    if isinstance(sound.get("method"), Mapping):
        sound["method"] = gather_options(sound["method"])
    # From the back: taking out an entry of a list moves those behind it.
    for place in reversed(invalid):
        # A fault of a whole section is about fields that are valid one by one.
        if len(place) > 1:
            # An option goes as a whole. What follows its name are the types that pydantic tried on it.
            _drop(sound, place[:3] if place[:2] == ("method", "options") else place)
    kind = sound.get("kind")
    method = salvage_section(MethodSpec, sound.get("method"))
    return TaskSections(
        kind=kind if isinstance(kind, str) else None,
        data=salvage_section(DataSpec, sound.get("data")),
        method=method if method is not None and method.name else None,
        train=salvage_section(TrainSpec, sound.get("train", {})),
        generate=salvage_section(GenerateSpec, sound.get("generate", {})),
        evaluate=salvage_section(EvaluateSpec, sound.get("evaluate", {})),
        gate=salvage_section(GateSpec, sound.get("gate", {})),
        head=salvage_section(HeadSpec, sound.get("head")),
    )


def salvage_section(section_class: type[_Section], content: object) -> _Section | None:
    """Read the fields of a section one by one, leaving out those that are invalid.

    Rules of the model that concern several fields are not applied.

    Returns:
        The section, in which invalid fields have their default values and required ones are ""; None if the
        content is no mapping.
    """
    if not isinstance(content, Mapping):
        return None
    values: dict[str, Any] = {}
    for name, field in section_class.model_fields.items():
        if name in content:
            field_type: Any = Annotated[field.annotation, field]
            with contextlib.suppress(ValidationError):
                values[name] = TypeAdapter(field_type).validate_python(content[name])
        if name not in values and field.is_required():
            values[name] = ""
    return section_class.model_construct(**values)


def _drop(document: Any, place: Sequence[int | str]) -> None:
    """Take the value at a place out of a document, if it is there."""
    *parents, last = place
    container = document
    for part in parents:
        if not _holds(container, part):
            return
        container = container[part]
    if _holds(container, last):
        del container[last]


def _holds(container: Any, key: int | str) -> bool:
    if isinstance(container, list):
        return isinstance(key, int) and key < len(container)
    return isinstance(container, dict) and key in container
