"""The form of a task's inputs: all that decides, beside its classes, how a row is read and answered."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import ValidationError

from lorry_components.data.templates import FIELDS, list_slots, parse_template
from lorry_registry.manifest import Pooling
from lorry_registry.tasks.task_spec import GenerateSpec, HeadSpec, TaskSpec

LINEAR_PROBE = "probe"
"""The method that trains nothing but a fitted head."""


@dataclass(frozen=True, slots=True)
class InputForm:
    """How rows become a model's inputs, and how answers are read from its outputs.

    Attributes:
        max_length: Inputs are cut to so many tokens.
        template: How ``{text}``, ``{text_pair}`` and ``{label}`` become one text; None: as the task type does
            by default.
        max_target: Answers are cut to so many tokens, and no more are generated.
        has_pair: Whether rows have a second text.
        generate: How texts are generated.
        soft_template: What the method makes of the inputs: where its soft tokens stand; None: they stand
            before all else, or there are none.
        pooling: What a head on whole texts reads of the base; ``auto``: it depends on the base; ``stated``:
            what the base states, and nothing but that; ``stated-if-few``: the same where training rows are
            few; None: what transformers' class for the base reads.
        head_dropout: Dropout before that head's output layer; None: none, or that of transformers' class.
        fits_head: Whether the head is fitted to what the base computes before training.
    """

    max_length: int
    template: str | None = None
    max_target: int = 64
    has_pair: bool = False
    generate: GenerateSpec = field(default_factory=GenerateSpec)
    soft_template: str | None = None
    pooling: Pooling | Literal["auto", "stated", "stated-if-few"] | None = None
    head_dropout: float | None = None
    fits_head: bool = False

    @classmethod
    def of(cls, spec: TaskSpec) -> Self:
        """Return the form of a task."""
        data, head = spec.data, spec.head
        is_probe = spec.method.name == LINEAR_PROBE
        return cls(
            max_length=data.max_length,
            template=data.template,
            max_target=data.max_target,
            has_pair=data.columns.text_pair is not None,
            generate=spec.generate,
            soft_template=_find_soft_template(spec.method.options),
            pooling=_choose_pooling(head) if head is not None else "auto" if is_probe else None,
            head_dropout=head.dropout if head is not None else None,
            fits_head=is_probe or (head is not None and head.init == "probe"),
        )

    @classmethod
    def read(cls, recipe: Mapping[str, Any]) -> Self:
        """Return the form that a manifest's recipe records; what a head reads is recorded elsewhere.

        Raises:
            ValueError: It records none.
        """
        data = recipe.get("data")
        if not isinstance(data, dict) or not isinstance(data.get("max_length"), int):
            raise ValueError("no max_length")
        template, max_target, columns = data.get("template"), data.get("max_target", 64), data.get("columns")
        if not isinstance(template, str | None) or not isinstance(max_target, int):
            raise ValueError("no usable template and max_target")
        try:
            generate = GenerateSpec.model_validate(recipe.get("generate", {}))
        except ValidationError as error:
            raise ValueError("no usable way to generate") from error
        has_pair = isinstance(columns, dict) and columns.get("text_pair") is not None
        method = recipe.get("method")
        options = method.get("options") if isinstance(method, dict) else None
        soft_template = _find_soft_template(options if isinstance(options, dict) else {})
        return cls(data["max_length"], template, max_target, has_pair, generate, soft_template)


def list_template_fields(template: str) -> list[str]:
    """Return the fields that a template names, in order.

    Raises:
        ValueError: It is no template; the message says why.
    """
    return list_slots(parse_template(template))


def fill_template(template: str, fields: Mapping[str, str]) -> str:
    """Return a template with its fields filled in, all others left empty."""
    return template.format(**{name: fields.get(name, "") for name in FIELDS})


def _choose_pooling(spec: HeadSpec) -> Pooling | Literal["auto"] | None:
    if spec.pooling == "transformers":
        return None
    return "auto" if spec.pooling == "auto" else Pooling(place=spec.pooling)


def _find_soft_template(options: Mapping[str, Any]) -> str | None:
    template = options.get("template")
    return template if isinstance(template, str) else None
