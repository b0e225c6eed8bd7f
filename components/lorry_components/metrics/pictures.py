"""Small pictures of predictions as plain data, for reports: a confusion matrix, and points of a plot."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

_MOST_CLASSES = 12
_LISTED_MISTAKES = 12
_MOST_POINTS = 400
_NAME_CHARACTERS = 60


class _Picture(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Mistake(_Picture):
    """How often one class was taken for another."""

    truth: str
    answer: str
    count: int


class ConfusionPicture(_Picture):
    """How often rows of each class were answered with each class.

    Attributes:
        classes: How many classes there are, among true ones and answers.
        names: The classes; none where there are more than a person can read.
        counts: For each true class, how often it was answered with each class, in the order of the names.
        mistakes: The most frequent mistakes, the most frequent one first.
        wrong: How many rows were answered with a wrong class.
        rows: How many rows there are.
    """

    form: Literal["confusion"] = "confusion"
    classes: int
    names: tuple[str, ...] = ()
    counts: tuple[tuple[int, ...], ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    wrong: int
    rows: int


class ScatterPicture(_Picture):
    """Predicted beside true numbers.

    Attributes:
        points: True and predicted number of some of the rows, spread evenly over all of them.
        rows: How many rows there are.
    """

    form: Literal["scatter"] = "scatter"
    points: tuple[tuple[float, float], ...]
    rows: int


Picture = Annotated[ConfusionPicture | ScatterPicture, Field(discriminator="form")]


def count_confusions(truths: Sequence[str], answers: Sequence[str]) -> ConfusionPicture:
    """Return how often rows of each class were answered with each class."""
    pairs = Counter(zip(truths, answers, strict=True))
    classes = sorted({*truths, *answers})
    is_small = len(classes) <= _MOST_CLASSES
    wrong = {pair: count for pair, count in pairs.items() if pair[0] != pair[1]}
    # Of equally frequent ones the first by name: equal predictions give an equal picture.
    frequent = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:_LISTED_MISTAKES]
    return ConfusionPicture(
        classes=len(classes),
        names=tuple(map(_shorten, classes)) if is_small else (),
        counts=tuple(tuple(pairs[truth, answer] for answer in classes) for truth in classes)
        if is_small
        else (),
        mistakes=tuple(
            Mistake(truth=_shorten(truth), answer=_shorten(answer), count=count)
            for (truth, answer), count in frequent
        ),
        wrong=sum(wrong.values()),
        rows=len(truths),
    )


def choose_points(truths: NDArray[np.float64], answers: NDArray[np.float64]) -> ScatterPicture:
    """Return true and predicted numbers of at most some hundred rows."""
    chosen = np.unique(np.linspace(0, len(truths) - 1, min(_MOST_POINTS, len(truths))).round().astype(int))
    points = tuple((float(f"{truths[place]:.5g}"), float(f"{answers[place]:.5g}")) for place in chosen)
    return ScatterPicture(points=points, rows=len(truths))


def _shorten(name: str) -> str:
    return name if len(name) <= _NAME_CHARACTERS else f"{name[: _NAME_CHARACTERS - 1]}…"
