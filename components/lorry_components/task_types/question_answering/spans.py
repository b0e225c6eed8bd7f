"""Answers that are spans of a context: as data writes them, as labels, and scored as SQuAD scores them.

Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250; questions without an answer: Rajpurkar, Jia and Liang
2018, https://arxiv.org/abs/1806.03822.
"""

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lorry_components.task_types.base import Label, Metric, Prediction, Scorer, Target, list_right
from lorry_registry.digests import canonical_json
from lorry_registry.errors import InvalidValueError

_SHOWN_CHARACTERS = 60
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
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
        found = context.find(answer.text)
        if found < 0:
            return f"the answer {_quote(answer.text)} does not occur in the context"
        if answer.start is not None and not context.startswith(answer.text, answer.start):
            return (
                f"the answer {_quote(answer.text)} does not stand at character {answer.start:,} "
                f"of the context, but at {found:,}"
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


def normalise_answer(text: str) -> str:
    """Return a text in lower case without punctuation, articles and superfluous white space."""
    bare = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def compute_exact_match(truth: str, guess: str) -> float:
    """Return whether two texts are the same but for what :func:`normalise_answer` takes away: 1 or 0."""
    return float(normalise_answer(truth) == normalise_answer(guess))


def compute_f1(truth: str, guess: str) -> float:
    """Return the harmonic mean of precision and recall of the words, each as often as it occurs."""
    expected, given = normalise_answer(truth).split(), normalise_answer(guess).split()
    if not expected or not given:
        return float(expected == given)
    shared = sum((Counter(expected) & Counter(given)).values())
    return 2.0 * shared / (len(expected) + len(given))


def score_answers(
    compute: Callable[[str, str], float], targets: Sequence[Target], predictions: Sequence[Prediction]
) -> list[float]:
    """Return for each row the best score over the answers that are right.

    An answer of nothing but punctuation and articles is none, and where there is none the empty prediction
    is right.
    """
    return [
        max(compute(truth, prediction["answer"]) for truth in list_truths(target))
        for target, prediction in zip(targets, predictions, strict=True)
    ]


def list_truths(target: Target) -> list[str]:
    """Return the texts that are right for a row; an empty one alone: there is no answer."""
    texts = [answer.text for label in list_right(target) for answer in read_answers(label)]
    return [text for text in texts if normalise_answer(text)] or [""]


def make_metric(compute: Callable[[str, str], float]) -> Metric:
    """Return the metric that is the mean of a score over the rows, from 0 to 1."""

    def prepare(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
        scores = np.asarray(score_answers(compute, targets, predictions))
        return lambda draw: float(scores[draw].mean())

    return prepare


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
