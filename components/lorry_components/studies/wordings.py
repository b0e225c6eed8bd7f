"""The study of the prompt: how much depends on its wording, with and without P-tuning (Liu et al. 2021)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorry_components.studies.drafting import Draft, MethodChoice, TaskDocument, draft_method
from lorry_components.studies.summarizing import StudyRow
from lorry_registry.errors import Fault

UNTRAINED = "untrained"
# Where soft tokens stand in a wording: [P] is one, [P]*3 are three.
_SOFT_TOKENS = re.compile(r"\[P\](?:\*\d+)?\s*")
_TEMPLATE = "template"


def read_wordings(path: Path) -> tuple[list[str], list[Fault]]:
    """Read a file of wordings, one a line; return them, and what is wrong with the file."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return [], [Fault(f"--wordings {path}", "there is no such file")]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return [], [Fault(f"--wordings {path}", f"cannot be read as UTF-8 text: {reason}")]
    wordings = [line for line in lines if line.strip()]
    return wordings, [] if wordings else [Fault(f"--wordings {path}", "it holds no wording")]


def check_wordings(wordings: Sequence[str]) -> Iterator[Fault]:
    """Say what is wrong with a list of wordings, beside what a kind says of each."""
    if not wordings:
        yield Fault("--template", "there is no wording; give --wordings FILE or --template TEXT")
    for wording in dict.fromkeys(wordings):
        if wordings.count(wording) > 1:
            yield Fault("--template", f"{wording!r} is given twice")


def describe_spreads(rows: Sequence[StudyRow]) -> list[str]:
    """Say how far apart the wordings lie, by what they were tried with: the point of the study."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.estimate is not None:
            values.setdefault(row.variant.facts["with"], []).append(row.estimate.value)
    told = [f"{name} {max(found) - min(found):.3f}" for name, found in values.items() if len(found) > 1]
    return [f"spread over wordings, highest less lowest: {', '.join(told)}"] if told else []


def draft_wordings(
    task: TaskDocument, wordings: Sequence[str], methods: Sequence[MethodChoice]
) -> list[Draft]:
    """Lay out wordings x methods, and each wording on the untrained base.

    A wording may say where soft tokens stand, ``[P]*3 {text} is in [P] {label}``: a method with a template of
    its own gets it as written, and all else reads the words alone.

    Args:
        task: The task.
        wordings: Templates.
        methods: What is trained on each.
    """
    drafts: list[Draft] = []
    # A task has to have a method; the base alone does without, so any that fits will do.
    untrained = (draft_method(methods[0], task).method if methods else None) or task.method
    for number, wording in enumerate(wordings, start=1):
        words = _SOFT_TOKENS.sub("", wording).strip()
        facts = {"wording": number, _TEMPLATE: wording}
        drafts.append(
            Draft(
                label=f"{number} {UNTRAINED}",
                method=_set_template(untrained, None),
                data={_TEMPLATE: words},
                facts=facts | {"with": UNTRAINED},
                is_trained=False,
            )
        )
        for choice in methods:
            laid = draft_method(choice, task)
            section = dict(laid.method or {})
            if words != wording and "tokens" not in choice.options:
                # The wording tells how many there are.
                section.pop("tokens", None)
            drafts.append(
                Draft(
                    label=f"{number} {choice.label}",
                    method=_set_template(section, wording if words != wording else None),
                    train=laid.train,
                    data={_TEMPLATE: words},
                    facts=facts | {"with": choice.label},
                )
            )
    return drafts


def _set_template(section: Mapping[str, Any], template: str | None) -> dict[str, Any]:
    """Return a method section with another template: the file's was written for the file's words."""
    kept = {key: value for key, value in section.items() if key != _TEMPLATE}
    return kept if template is None else kept | {_TEMPLATE: template}
