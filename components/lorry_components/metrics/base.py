"""The interface of a metric: the values that it compares, and the scores that it returns."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lorry_components.data.rows import Label

Target = Label | tuple[Label, ...]
"""What a prediction is compared with: a label, or all the labels that are right for the same input."""

Prediction = dict[str, Any]
"""The answer to one row, by field; which fields there are depends on the task type."""

Scorer = Callable[[NDArray[np.intp]], float]
"""Returns the value of a metric on some rows, given by their numbers: a bootstrap draws many such sets."""

Metric = Callable[[Sequence[Target], Sequence[Prediction]], Scorer]
"""Looks once at all targets and predictions, so that scoring a set of rows costs little."""


@runtime_checkable
class DrawScorer(Protocol):
    """A scorer that also scores many sets of rows at once, which is faster than one after the other."""

    def __call__(self, rows: NDArray[np.intp], /) -> float:
        """Return the value on some rows, given by their numbers."""

    def score_draws(self, draws: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the value on each set of rows, shape (sets,), of numbers of rows, shape (sets, rows)."""


def score_draws(scorer: Scorer, draws: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the value on each set of rows, all at once where the scorer can do that.

    Args:
        scorer: Scores some of the rows.
        draws: Numbers of rows, shape (sets, rows).
    """
    if isinstance(scorer, DrawScorer):
        return scorer.score_draws(draws)
    return np.asarray([scorer(draw) for draw in draws], dtype=np.float64)


class MeanScorer:
    """The mean of a value that each row has by itself.

    Args:
        values: The value of each row.
    """

    def __init__(self, values: Sequence[float] | NDArray[Any]) -> None:
        self.values: NDArray[np.float64] = np.asarray(values, dtype=np.float64)

    def __call__(self, draw: NDArray[np.intp], /) -> float:
        """Return the mean over some rows."""
        return float(np.mean(self.values[draw]))

    def score_draws(self, draws: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the mean over each set of rows."""
        means: NDArray[np.float64] = np.mean(self.values[draws], axis=1)
        return means


class SumScorer:
    """A value of several sums over rows, such as of counts.

    Args:
        counts: What each row adds to the sums, shape (rows, sums).
        compute: Returns the value for the sums.
    """

    def __init__(self, counts: NDArray[Any], compute: Callable[[NDArray[Any]], float]) -> None:
        self._counts = counts
        self._compute = compute
        # As floating point, a product of matrices is fast; whole numbers stay exact up to 2^53.
        self._weights = counts.astype(np.float64)

    def __call__(self, draw: NDArray[np.intp], /) -> float:
        """Return the value for the sums over some rows."""
        return self._compute(self._counts[draw].sum(axis=0))

    def score_draws(self, draws: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the value for the sums over each set of rows: each row is taken as often as it was drawn."""
        times = count_each(draws, len(self._counts)).astype(np.float64)
        sums = (times @ self._weights).astype(self._counts.dtype)
        return np.asarray([self._compute(line) for line in sums], dtype=np.float64)


class AverageScorer:
    """The mean of several scorers on the same rows, such as of trainings with several seeds.

    Args:
        scorers: The scorers, at least one.
    """

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self._scorers = scorers

    def __call__(self, draw: NDArray[np.intp], /) -> float:
        """Return the mean of all on some rows."""
        return float(np.mean([scorer(draw) for scorer in self._scorers]))

    def score_draws(self, draws: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the mean of all on each set of rows."""
        means: NDArray[np.float64] = np.mean([score_draws(each, draws) for each in self._scorers], axis=0)
        return means


def average_scorers(scorers: Sequence[Scorer]) -> Scorer:
    """Return a scorer of the mean of several on the same rows."""
    if len(scorers) == 1:
        return scorers[0]
    means = [scorer.values for scorer in scorers if isinstance(scorer, MeanScorer)]
    return MeanScorer(np.mean(means, axis=0)) if len(means) == len(scorers) else AverageScorer(scorers)


def count_each(numbers: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Return how often each number below a size occurs in each line, shape (lines, size).

    Args:
        numbers: Shape (lines, any).
        size: What all numbers are below.
    """
    lines = len(numbers)
    apart = numbers + size * np.arange(lines)[:, np.newaxis]
    return np.bincount(apart.ravel(), minlength=lines * size).reshape(lines, size)


def list_right(target: Target) -> tuple[Label, ...]:
    """Return all labels that are right for an input, one or more."""
    return target if isinstance(target, tuple) else (target,)
