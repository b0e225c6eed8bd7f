"""Differences of two on the same rows: one estimate, of which the interval and each decision are read.

What is hard for both cancels out: only how each row differs counts. A row's own part in a metric that is no
mean is its jackknife pseudo-value (Tukey 1958). One row more is taken to speak for each side, as Agresti and
Min (Simple improved confidence intervals for comparing matched proportions, Statistics in Medicine 2005) add
half a row to each of the four cells: without these, three better rows and no worse one would look certain.
"""

from dataclasses import dataclass

import numpy as np

from lorry_components.metrics.base import MeanScorer, Scorer
from lorry_components.metrics.intervals import DEVIATIONS, NORMAL, Values, score_without


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one is than another on the same rows.

    Attributes:
        value: The difference on these rows.
        middle: The middle of its interval, which few rows draw towards 0.
        error: Its standard error.
    """

    value: float
    middle: float
    error: float

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval."""
        return min(self.value, self.middle - DEVIATIONS * self.error)

    @property
    def high(self) -> float:
        """The upper end of the 95 % interval."""
        return max(self.value, self.middle + DEVIATIONS * self.error)

    def find_confidence(self, minimum: float = 0.0) -> float:
        """Return how sure it is that the difference is above a minimum, from 0 to 1."""
        return NORMAL.cdf((self.middle - minimum) / self.error)


def estimate_difference(candidate: Scorer, other: Scorer, rows: int) -> Difference:
    """Return how much better one is than another on the same rows.

    Args:
        candidate: Scores the one on some of the rows.
        other: Scores the other on the same rows.
        rows: How many rows there are, at least one.
    """
    everything = np.arange(rows)
    value = candidate(everything) - other(everything)
    sides = [_list_parts(scorer, rows) for scorer in (candidate, other)]
    if len(sides[0]) != len(sides[1]):
        sides = [_list_pseudo_values(scorer, rows) for scorer in (candidate, other)]
    parts = sides[0] - sides[1]
    # Where no row differs, a row could differ by as much as it is worth.
    most = float(np.abs(parts).max() or np.abs(sides).max() or 1.0)
    counted = len(parts) + 2.0
    middle = float(np.sum(parts)) / counted
    variance = (float(np.sum(parts**2)) + most**2) / counted - middle**2
    return Difference(value, middle, (variance / counted) ** 0.5)


def _list_parts(scorer: Scorer, rows: int) -> Values:
    return scorer.values if isinstance(scorer, MeanScorer) else _list_pseudo_values(scorer, rows)


def _list_pseudo_values(scorer: Scorer, rows: int) -> Values:
    """Return each row's part in a value, or that of each group of rows: their mean is the value."""
    value = scorer(np.arange(rows))
    without = score_without(scorer, rows)
    parts = len(without) * value - (len(without) - 1) * without
    # But for a bias that is of no matter here.
    return np.asarray(parts - np.mean(parts) + value)
