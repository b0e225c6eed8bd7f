"""Metrics of regression: correlations, and the error."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lorry_components.metrics.base import Prediction, Scorer, Target, count_each

Numbers = NDArray[np.float64]


class NumbersScorer:
    """A value of true and predicted numbers.

    Args:
        truth: The true numbers.
        guess: The predicted ones.
        compute: Returns the value for both.
        compute_lines: Returns it for each line of both, shape (lines, rows).
    """

    def __init__(
        self,
        truth: Numbers,
        guess: Numbers,
        compute: Callable[[Numbers, Numbers], float],
        compute_lines: Callable[[Numbers, Numbers], Numbers],
    ) -> None:
        self._truth, self._guess = truth, guess
        self._compute, self._compute_lines = compute, compute_lines

    def __call__(self, draw: NDArray[np.intp], /) -> float:
        """Return the value on some rows."""
        return self._compute(self._truth[draw], self._guess[draw])

    def score_draws(self, draws: NDArray[np.intp]) -> Numbers:
        """Return the value on each set of rows."""
        return self._compute_lines(self._truth[draws], self._guess[draws])


class RankScorer:
    """Spearman's rank correlation of true and predicted numbers: both are sorted once, and then only counted.

    Args:
        truth: The true numbers.
        guess: The predicted ones.
    """

    def __init__(self, truth: Numbers, guess: Numbers) -> None:
        self._sides = [np.unique(side, return_inverse=True)[1] for side in (truth, guess)]

    def __call__(self, draw: NDArray[np.intp], /) -> float:
        """Return the correlation on some rows."""
        truth, guess = (_rank_codes(side[draw][np.newaxis])[0] for side in self._sides)
        return compute_pearson(truth, guess)

    def score_draws(self, draws: NDArray[np.intp]) -> Numbers:
        """Return the correlation on each set of rows."""
        truth, guess = (_rank_codes(side[draws]) for side in self._sides)
        return compute_pearson_lines(truth, guess)


def compute_pearson(truth: Numbers, guess: Numbers) -> float:
    """Pearson's r; 0 where one side is constant."""
    # Not by the standard deviation: that of equal numbers is not always quite 0.
    if np.ptp(truth) == 0.0 or np.ptp(guess) == 0.0:
        return 0.0
    return float(np.corrcoef(truth, guess)[0, 1])


def compute_pearson_lines(truth: Numbers, guess: Numbers) -> Numbers:
    """Pearson's r of each line, shape (lines,); 0 where one side is constant."""
    varies = (np.ptp(truth, axis=1) > 0.0) & (np.ptp(guess, axis=1) > 0.0)
    first, second = (side - side.mean(axis=1, keepdims=True) for side in (truth, guess))
    shared = np.einsum("lr,lr->l", first, second)
    # The root of each first: the product of both may be too large or too small for a number.
    spread = np.sqrt(np.einsum("lr,lr->l", first, first)) * np.sqrt(np.einsum("lr,lr->l", second, second))
    found: Numbers = np.zeros(len(truth))
    np.divide(shared, spread, out=found, where=varies & (spread > 0.0))
    return found.clip(-1.0, 1.0)


def compute_spearman(truth: Numbers, guess: Numbers) -> float:
    """Spearman's rank correlation; 0 where one side is constant."""
    return RankScorer(truth, guess)(np.arange(len(truth)))


def compute_rmse(truth: Numbers, guess: Numbers) -> float:
    """Root of the mean squared error, in the unit of the label. Lower is better."""
    return float(np.sqrt(np.mean((truth - guess) ** 2)))


def compute_rmse_lines(truth: Numbers, guess: Numbers) -> Numbers:
    """Root of the mean squared error of each line, shape (lines,)."""
    errors: Numbers = np.sqrt(np.mean((truth - guess) ** 2, axis=1))
    return errors


def score_pearson(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Pearson's r, from -1 to 1."""
    return NumbersScorer(*_list_sides(targets, predictions), compute_pearson, compute_pearson_lines)


def score_spearman(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Spearman's rank correlation, from -1 to 1."""
    return RankScorer(*_list_sides(targets, predictions))


def score_rmse(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Root of the mean squared error, in the unit of the label. Lower is better."""
    return NumbersScorer(*_list_sides(targets, predictions), compute_rmse, compute_rmse_lines)


def list_values(predictions: Sequence[Prediction]) -> Numbers:
    """Return the predicted numbers, shape (rows,)."""
    return np.asarray([prediction["value"] for prediction in predictions], dtype=float)


def _list_sides(targets: Sequence[Target], predictions: Sequence[Prediction]) -> tuple[Numbers, Numbers]:
    return np.asarray(targets, dtype=float), list_values(predictions)


def _rank_codes(codes: NDArray[np.intp]) -> Numbers:
    """Return the rank of each number in its line, of equal ones their mean, from 1.

    Args:
        codes: Whole numbers from 0 in place of the numbers, in the same order, shape (lines, rows).
    """
    times = count_each(codes, int(codes.max()) + 1)
    last = np.cumsum(times, axis=1)
    return np.take_along_axis(last - (times - 1) / 2, codes, axis=1)
