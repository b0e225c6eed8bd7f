"""Answers that are spans of a context: as data writes them, and as labels."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorry_components.data.rows import Label
from lorry_components.metrics.base import Target, list_right
from lorry_components.metrics.squad import normalise_answer
from lorry_registry.errors import InvalidValueError
from lorry_registry.files.digests import canonical_json

_SHOWN_CHARACTERS = 60
_NONE_TODO = "write [] where the context has no answer"


@dataclass(frozen=True, slots=True)
class Answer:
    """One of the answers that are right.

    Attributes:
        text: A piece of the context.
        start: The character of the context at which it starts; None: where it stands first.
    """

    text: str
    start: int | None


def parse_answers(raw: object) -> list[Answer]:
    """Read a cell of the label column.

    Args:
        raw: SQuAD's ``{"text": [...], "answer_start": [...]}``, a list of ``{"text", "answer_start"}``,
            either of them as a string of JSON, or the answer itself. An empty list is a question without an
            answer.

    Raises:
        ValueError: It is none of these; the message says why.
    """
    if isinstance(raw, str):
        document = _read_json(raw)
        return [_make_answer(raw, None)] if document is None else parse_answers(document)
    if isinstance(raw, Mapping):
        return _parse_columns(raw)
    if isinstance(raw, list):
        return [answer for item in raw for answer in _parse_item(item)]
    raise InvalidValueError(f"holds {_name_type(raw)}, not answers", _NONE_TODO)


def write_answers(answers: Sequence[Answer]) -> str:
    """Return the label: SQuAD's form as canonical JSON, so that equal answers are equal labels."""
    columns = {
        "answer_start": [answer.start for answer in answers],
        "text": [answer.text for answer in answers],
    }
    return canonical_json(columns).decode()


def read_answers(label: Label) -> list[Answer]:
    """Read a label."""
    columns = json.loads(str(label))
    return [Answer(text, start) for text, start in zip(columns["text"], columns["answer_start"], strict=True)]


def find_answer_fault(context: str, answers: Sequence[Answer]) -> str:
    """Say which answer does not stand where it should in its context, or nothing."""
    for answer in answers:
        first = context.find(answer.text)
        if first < 0:
            return f"the answer {_quote(answer.text)} does not occur in the context"
        if answer.start is not None and not context.startswith(answer.text, answer.start):
            return (
                f"the answer {_quote(answer.text)} does not stand at character {answer.start:,} "
                f"of the context, but at {first:,}"
            )
    return ""


def choose_span(context: str, answers: Sequence[Answer]) -> tuple[int, int] | None:
    """Return the characters [start, end) of the answer that most annotators gave; None: there is none.

    White space around an answer does not count: no token stands for it.
    """
    spans: Counter[tuple[int, int]] = Counter()
    for answer in answers:
        start = context.find(answer.text) if answer.start is None else answer.start
        first = start + len(answer.text) - len(answer.text.lstrip())
        spans[first, start + len(answer.text.rstrip())] += 1
    # Of those that were given equally often, the first.
    return spans.most_common(1)[0][0] if spans else None


def list_truths(target: Target) -> list[str]:
    """Return the texts that are right for a row; an empty one alone: there is no answer.

    An answer of nothing but punctuation and articles is none.
    """
    texts = [answer.text for label in list_right(target) for answer in read_answers(label)]
    return [text for text in texts if normalise_answer(text)] or [""]


def _read_json(text: str) -> object:
    """Return what a string of JSON in one of the forms holds; None: it is an answer in plain words."""
    if not text.strip().startswith(("{", "[")):
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, list) and all(isinstance(item, dict) for item in document):
        return document
    return document if isinstance(document, dict) and "text" in document else None


def _parse_columns(raw: Mapping[str, object]) -> list[Answer]:
    if "text" not in raw:
        raise InvalidValueError("has no 'text'", 'write {"text": [...], "answer_start": [...]}')
    texts, starts = _make_list(raw["text"]), _make_list(raw.get("answer_start"))
    if raw.get("answer_start") is None:
        starts = [None] * len(texts)
    if len(texts) != len(starts):
        raise ValueError(f"has {len(texts)} texts and {len(starts)} of 'answer_start'")
    return [_make_answer(text, start) for text, start in zip(texts, starts, strict=True)]


def _parse_item(item: object) -> list[Answer]:
    if isinstance(item, str):
        return [_make_answer(item, None)]
    if isinstance(item, Mapping):
        return _parse_columns(item)
    raise ValueError(f"holds {_name_type(item)} in its list, not an answer")


def _make_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _make_answer(text: object, start: object) -> Answer:
    if not isinstance(text, str):
        raise ValueError(f"holds {_name_type(text)} as the text of an answer")
    if not text.strip():
        raise InvalidValueError("holds an answer without words", _NONE_TODO)
    if start is None:
        return Answer(text, None)
    if isinstance(start, float) and start.is_integer():
        # As pandas writes whole numbers of a column that has gaps.
        start = int(start)
    if isinstance(start, bool) or not isinstance(start, int) or start < 0:
        raise ValueError(f"has {start!r} as 'answer_start', not the number of a character from 0")
    return Answer(text, start)


def _name_type(value: object) -> str:
    if value is None:
        return "null"
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")


def _quote(text: str) -> str:
    cut = repr(text[:_SHOWN_CHARACTERS])
    return f"{cut}..." if len(text) > _SHOWN_CHARACTERS else cut
