"""Grids: one option of a method, its targets or the prompt, over several values.

``r=1,2,4`` is an option of each method, and ``train.learning_rate=1e-3,1e-4`` a field of the train section.
``targets=q,qv,qkvo`` names attention's projections (:mod:`~lorry_components.studies.target_grid`), and
``template=...`` the prompts (:mod:`~lorry_components.studies.prompt_grid`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lorry_components.studies.prompt_grid import draft_prompts, read_prompts
from lorry_components.studies.target_grid import LOW_RANK, draft_targets, is_combination
from lorry_components.studies.variants import (
    TRAIN,
    Draft,
    MethodChoice,
    TaskDocument,
    Variant,
    build_variants,
    draft_method,
    draft_probe,
    find_label,
    parse_methods,
    refuse_settings,
    split_list,
)
from lorry_registry.errors import Fault
from lorry_registry.tasks.task_document import parse_value

_TARGETS, _TEMPLATE = "targets", "template"


@dataclass(frozen=True, slots=True)
class Grid:
    """What a comparison varies.

    Attributes:
        name: The option, ``targets`` or ``template``.
        values: Its values.
    """

    name: str
    values: tuple[Any, ...]

    @property
    def is_numeric(self) -> bool:
        """Whether the values have places on a logarithmic axis."""
        return all(type(value) in (int, float) and value > 0 for value in self.values)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison, laid out and checked.

    Attributes:
        variants: The rows.
        against: The label of the row that all are compared with; None: the best.
        grid: What is varied beside the methods; None: nothing.
        notes: What a reader needs to know.
    """

    variants: tuple[Variant, ...]
    against: str | None = None
    grid: Grid | None = None
    notes: tuple[str, ...] = ()


def lay_out_comparison(
    task: TaskDocument,
    methods: str | None,
    *,
    grid: str | None = None,
    against: str | None = None,
    with_probe: bool = True,
) -> Comparison:
    """Turn the options of ``lorry compare`` into checked variants of a task.

    Args:
        task: The task.
        methods: What is compared, see :func:`~lorry_components.studies.variants.parse_methods`; None: with a
            grid, LoRA, or P-tuning for prompts.
        grid: What is varied, ``NAME=VALUE,...``; None: nothing.
        against: What all are compared with, as written in ``methods``, or a label; None: the best.
        with_probe: Whether the linear probe is compared as well, where there is one and no grid.

    Raises:
        BaseModelError: The base is not there.
        InvalidTaskError: The file, a method or the grid has faults; all are listed.
    """
    name, values, faults = _parse_grid(grid) if grid is not None else ("", [], [])
    choices, wrong = parse_methods(methods if methods is not None else _name_method(task, name))
    faults += wrong
    if name != _TARGETS:
        # LoRA alone has targets by letters, and it may be the file's own.
        faults += refuse_settings(task, {"method.name": "name methods in --methods"})
    drafts: list[Draft] = []
    notes: list[str] = []
    if grid is None:
        drafts = [draft_method(choice, task) for choice in choices]
        if with_probe and choices and (probe := draft_probe(task, choices)) is not None:
            drafts.append(probe)
    elif values:
        drafts, wrong, notes = _draft_grid(task, name, values, choices)
        faults += wrong + _refuse_double(task, name, choices)
    reference, wrong = find_label(against, [draft.label for draft in drafts])
    variants = build_variants(task, drafts, [*faults, *wrong])
    found = dict.fromkeys(str(variant.facts.get("grid")) for variant in variants)
    points = {str(variant.facts.get("grid")): variant.facts.get("grid") for variant in variants}
    return Comparison(
        tuple(variants),
        reference,
        Grid(name, tuple(points[key] for key in found)) if grid is not None else None,
        tuple(notes),
    )


def _parse_grid(text: str) -> tuple[str, list[str], list[Fault]]:
    name, separator, written = text.partition("=")
    name = name.strip()
    values = [value.strip() for value in split_list(written, ",")]
    if not separator or not name or not all(values):
        return name, [], [Fault(f"--grid {text}", "is not of the form NAME=VALUE,VALUE", "write r=1,2,4")]
    return name, values, []


def _name_method(task: TaskDocument, name: str) -> str:
    if name == _TEMPLATE:
        return "p-tuning"
    own = task.method.get("name")
    return str(own) if own in LOW_RANK else "lora"


def _draft_grid(
    task: TaskDocument, name: str, values: Sequence[str], choices: Sequence[MethodChoice]
) -> tuple[list[Draft], list[Fault], list[str]]:
    if name == _TEMPLATE:
        prompts, faults = read_prompts(values)
        notes = [f"{number}: {text}" for number, text in enumerate(prompts, start=1)]
        return draft_prompts(task, prompts, choices), faults, notes
    if name == _TARGETS and all(map(is_combination, values)):
        return draft_targets(task, values, choices)
    drafts: list[Draft] = []
    faults = []
    for written in values:
        try:
            value = parse_value(written)
        except ValueError:
            faults.append(Fault("--grid", f"{name}: {written!r} is not a YAML value"))
            continue
        for choice in choices:
            option = {name.removeprefix(TRAIN): value}
            varied = (
                replace(choice, train={**choice.train, **option})
                if name.startswith(TRAIN)
                else replace(choice, options={**choice.options, **option})
            )
            drafts.append(replace(draft_method(varied, task), facts={"grid": _read_number(value)}))
    return drafts, faults, []


def _read_number(value: Any) -> Any:
    """Return the number that a text is: to YAML 1e-3 is none."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _refuse_double(task: TaskDocument, name: str, choices: Sequence[MethodChoice]) -> list[Fault]:
    """Return where something else gives what the grid varies."""
    fields = [name if name.startswith(TRAIN) else f"method.{name}"]
    if name == _TEMPLATE:
        fields.append("data.template")
    return [
        *refuse_settings(task, dict.fromkeys(fields, "give its values in --grid")),
        *(
            Fault(f"--methods {choice.label}", f"{name} is what --grid varies", "give it in one of them")
            for choice in choices
            if name in choice.options or name.removeprefix(TRAIN) in choice.train
        ),
    ]
