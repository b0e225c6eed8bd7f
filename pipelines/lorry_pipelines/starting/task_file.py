"""A guessed task as a YAML file, each choice with its reason beside it."""

import re
import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from lorry_components.memory.expectations import advise_on_methods
from lorry_components.tasks.json_schema import EDITOR_LINE
from lorry_pipelines.starting.guesses import CLASSIFICATION, GENERATION, Guess, TaskGuess

_WIDTH = 110
_NAME_CHARACTERS = 63


def name_task(stem: str) -> str:
    """Return a task's name made of a file's: lower-case letters, digits and ``-``."""
    name = re.sub(r"[^a-z0-9]+", "-", stem.casefold()).strip("-")[:_NAME_CHARACTERS].strip("-")
    return name or "task"


def render_task(guess: TaskGuess, *, name: str, base: str, revision: str | None, source: str) -> str:
    """Return the task file.

    Args:
        guess: What was guessed.
        name: The task's name.
        base: Its base, as ``base.model`` takes it.
        revision: The commit of a base from a hub.
        source: The data, as a path from the file's folder.
    """
    columns = {"text": guess.text, "text_pair": guess.text_pair, "label": guess.label}
    data: dict[str, Any] = {
        "source": source,
        "columns": {key: value for key, value in columns.items() if value is not None},
        **({"split": {**guess.split, "seed": 0}} if guess.split else {}),
        "max_length": guess.max_length,
    }
    said = {each.about: each for each in guess.guesses}
    lines = [
        EDITOR_LINE,
        "# Every field is described in docs/task-file.md of Lorry.",
        f"name: {_flow(name)}",
        *_comment(said.get("kind")),
        f"kind: {guess.kind}",
        "",
        "base:",
        f"  model: {_flow(base)}",
        *([f"  revision: {_flow(revision)}"] if revision else []),
        "",
        "data:",
        f"  source: {_flow(data['source'])}",
        *_comment(
            said.get("text"), said.get("second text"), said.get("label"), said.get("classes"), indent=2
        ),
        f"  columns: {_flow(data['columns'])}",
        *(["  format: {decimal: ','}"] if guess.decimal == "," else []),
        *_comment(said.get("rows with gaps"), indent=2),
        *(["  on_fault: drop"] if guess.drops_gaps else []),
        *_comment(said.get("split"), indent=2),
        *([f"  split: {_flow(data['split'])}"] if guess.split else []),
        *_comment(said.get("length"), indent=2),
        f"  max_length: {guess.max_length}",
        "",
        *textwrap.wrap(advise_on_methods(guess.kind), _WIDTH, initial_indent="# ", subsequent_indent="# "),
        "method: {name: lora, r: 8}",
        *_list_head(guess.kind),
        "",
        "# A new adapter becomes the champion if it beats a trivial baseline, and the champion before it.",
        "# With a least value that it must reach: gate: {minimum: 0.8}",
    ]
    return "\n".join(lines) + "\n"


def _list_head(kind: str) -> Iterator[str]:
    if kind == CLASSIFICATION:
        yield "# The head starts as a linear model that is fitted to the frozen base: few rows are enough."
        yield "head: {pooling: auto, init: probe}"
    if kind == GENERATION:
        yield "# How prompt and answer are put together: data.template and data.max_target."


def _comment(*guesses: Guess | None, indent: int = 0) -> Iterator[str]:
    """Yield comments with the reasons; what was chosen stands below them, but for the classes."""
    margin = " " * indent
    for guess in guesses:
        if guess is not None:
            choice = f"{guess.choice}: " if guess.about == "classes" else ""
            # A name may hold what YAML takes in no comment.
            plain = "".join(letter if letter.isprintable() else " " for letter in choice + guess.why)
            yield from textwrap.wrap(
                " ".join(f"{guess.about}: {plain}".split()),
                _WIDTH,
                initial_indent=f"{margin}# ",
                subsequent_indent=f"{margin}#   ",
            )


def _flow(value: object) -> str:
    """Return a value as YAML on one line, quoted where it has to be."""
    text = _dump(value, allow_unicode=True)
    if yaml.safe_load(text) != value:
        # A line break of Unicode's, such as U+0085, would be read as a space.
        text = _dump(value, allow_unicode=False)
    return text


def _dump(value: object, *, allow_unicode: bool) -> str:
    text = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=allow_unicode, width=10_000, sort_keys=False
    )
    return str(text).removesuffix("...\n").strip()
