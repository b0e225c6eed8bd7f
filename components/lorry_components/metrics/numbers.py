"""How well numbers are predicted: correlations, and the error."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lorry_components.metrics.base import Metric, Prediction, Scorer, Target

Numbers = NDArray[np.float64]


def compute_pearson(truth: Numbers, guess: Numbers) -> float:
    """Pearson's r; 0 where one side is constant."""
    # Not by the standard deviation: that of equal numbers is not always quite 0.
    if np.ptp(truth) == 0.0 or np.ptp(guess) == 0.0:
        return 0.0
    return float(np.corrcoef(truth, guess)[0, 1])


def compute_spearman(truth: Numbers, guess: Numbers) -> float:
    """Spearman's rank correlation; 0 where one side is constant."""
    from scipy.stats import rankdata

    return compute_pearson(rankdata(truth), rankdata(guess))


def compute_rmse(truth: Numbers, guess: Numbers) -> float:
    """Root of the mean squared error, in the unit of the label. Lower is better."""
    return float(np.sqrt(np.mean((truth - guess) ** 2)))


def score_numbers(compute: Callable[[Numbers, Numbers], float]) -> Metric:
    """Return the metric that computes a value from true and predicted numbers."""

    def prepare(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
        truth, guess = np.asarray(targets, dtype=float), list_values(predictions)
        return lambda draw: compute(truth[draw], guess[draw])

    return prepare


def list_values(predictions: Sequence[Prediction]) -> Numbers:
    """Return the predicted numbers, shape (rows,)."""
    return np.asarray([prediction["value"] for prediction in predictions], dtype=float)


score_pearson = score_numbers(compute_pearson)
"""Pearson's r, from -1 to 1."""

score_spearman = score_numbers(compute_spearman)
"""Spearman's rank correlation, from -1 to 1."""

score_rmse = score_numbers(compute_rmse)
"""Root of the mean squared error, in the unit of the label. Lower is better."""
