"""Grids of prompts: how much depends on the prompt, with and without P-tuning (Liu et al. 2021)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorry_components.methods import METHODS
from lorry_components.studies.study_summary import StudyRow
from lorry_components.studies.variants import Draft, MethodChoice, TaskDocument, draft_method
from lorry_registry.errors import Fault

UNTRAINED = "untrained"
# The places of soft tokens in a prompt: [P] is one, [P]*3 are three.
_SOFT_TOKENS = re.compile(r"\[P\](?:\*\d+)?\s*")
_TEMPLATE = "template"
_OPTION = "--grid template"


def read_prompts(values: Sequence[str]) -> tuple[list[str], list[Fault]]:
    """Return the prompts of a grid, and their faults, apart from those that the task type finds in each.

    Args:
        values: Templates, in quotes where they hold a comma; or ``@FILE``, a file of templates, one a line.
    """
    prompts: list[str] = []
    faults: list[Fault] = []
    for value in values:
        if value.startswith("@"):
            read, wrong = _read_file(Path(value[1:]))
            prompts += read
            faults += wrong
        else:
            is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            prompts.append(value[1:-1] if is_quoted else value)
    twice = [prompt for prompt in dict.fromkeys(prompts) if prompts.count(prompt) > 1]
    return prompts, faults + [Fault(_OPTION, f"{prompt!r} is given twice") for prompt in twice]


def _read_file(path: Path) -> tuple[list[str], list[Fault]]:
    try:
        # Not str.splitlines: it also splits a text at U+2028 and other characters.
        lines = path.read_text("utf-8-sig").split("\n")
    except FileNotFoundError:
        return [], [Fault(f"{_OPTION}=@{path}", "there is no such file")]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return [], [Fault(f"{_OPTION}=@{path}", f"cannot be read as UTF-8 text: {reason}")]
    prompts = [line for line in lines if line.strip()]
    return prompts, [] if prompts else [Fault(f"{_OPTION}=@{path}", "it holds no prompt")]


def describe_spreads(rows: Sequence[StudyRow]) -> list[str]:
    """Say how far the prompts' metrics are apart, for each method and untrained: the point of the grid."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.estimate is not None:
            values.setdefault(row.variant.facts.get("with", ""), []).append(row.estimate.value)
    spreads = [f"{name} {max(each) - min(each):.3f}" for name, each in values.items() if len(each) > 1]
    return [f"spread over prompts, highest minus lowest: {', '.join(spreads)}"] if spreads else []


def draft_prompts(task: TaskDocument, prompts: Sequence[str], methods: Sequence[MethodChoice]) -> list[Draft]:
    """Lay out prompts x methods, and each prompt on the untrained base.

    A prompt may mark the places of soft tokens, ``[P]*3 {text} is in [P] {label}``: a method with a template
    of its own gets it as written, and everything else reads the words alone.

    Args:
        task: The task.
        prompts: Templates.
        methods: What is trained on each.
    """
    return [
        draft
        for number, prompt in enumerate(prompts, start=1)
        for draft in _draft_prompt(task, number, prompt, methods)
    ]


def _draft_prompt(
    task: TaskDocument, number: int, prompt: str, methods: Sequence[MethodChoice]
) -> Iterator[Draft]:
    words = _SOFT_TOKENS.sub("", prompt).strip()
    soft = prompt if words != prompt else None
    data = {_TEMPLATE: words}
    trained = [
        Draft(
            label=f"{number} {choice.label}",
            method=_place_tokens(draft_method(choice, task).method or {}, choice, soft),
            train=draft_method(choice, task).train,
            data=data,
            facts={"grid": prompt, "wording": number, "with": choice.label},
        )
        for choice in methods
    ]
    yield Draft(
        label=f"{number} {UNTRAINED}",
        # A task must have a method, although the untrained base uses none: any that is laid out will do.
        method=trained[0].method if trained else task.method,
        data=data,
        facts={"grid": prompt, "wording": number, "with": UNTRAINED},
        is_trained=False,
    )
    yield from trained


def _has_template(name: str) -> bool:
    """Return whether a method has a template of its own; all others read the words alone."""
    return name in METHODS and _TEMPLATE in METHODS[name].options_model.model_fields


def _place_tokens(section: Mapping[str, Any], choice: MethodChoice, soft: str | None) -> dict[str, Any]:
    """Return a method section with the prompt's soft tokens: the file's template is for the file's words."""
    kept = {key: value for key, value in section.items() if key != _TEMPLATE}
    if soft is None or not _has_template(choice.name):
        return kept
    if "tokens" not in choice.options:
        # The prompt says how many there are.
        kept.pop("tokens", None)
    return kept | {_TEMPLATE: soft}
