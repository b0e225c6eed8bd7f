"""95 % intervals that hold their promise on few rows and near the ends of a scale.

The middle 95 % of plain resamples are too narrow there: with 98 % right, those of 50 rows miss the truth in
four of ten cases, and rows that are all right give an interval without width. How often these here cover the
truth is measured by ``tests/benchmarks/bench_intervals.py``.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from lorry_components.metrics.base import Scorer, score_draws

NORMAL = NormalDist()
DEVIATIONS = NORMAL.inv_cdf(0.975)
"""Standard deviations from the middle of a normal distribution to the end of its middle 95 %."""

# Groups of rows of which one is left out at a time: single rows where there are no more.
_MOST_GROUPS = 500
_AT_ONCE = 1 << 17
# Values that differ by less are the same but for rounding.
_ROUNDING = 1e-9

Interval = tuple[float, float]
Values = NDArray[np.float64]


def find_share_interval(share: float, rows: float) -> Interval:
    """Return Wilson's score interval of a share of rows.

    Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927.

    Args:
        share: The share, from 0 to 1.
        rows: How many rows it was counted on; as many as the rows are worth if they are not 0 or 1 each.
    """
    square = DEVIATIONS**2
    middle = share + square / (2.0 * rows)
    half = DEVIATIONS * (share * (1.0 - share) / rows + square / (4.0 * rows**2)) ** 0.5
    low, high = ((middle + side) / (1.0 + square / rows) for side in (-half, half))
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def find_mean_interval(values: Values) -> Interval:
    """Return the interval of the mean of values from 0 to 1.

    Wilson's, for as many rows as these are worth: values in between scatter less than zeros and ones of the
    same mean, as the design effect of survey statistics has it (Korn and Graubard, Survey Methodology 1998).
    """
    rows, mean = len(values), float(np.mean(values))
    most = mean * (1.0 - mean)
    if rows < 2 or most < _ROUNDING:
        return find_share_interval(mean, rows)
    effect = min(1.0, float(np.var(values, ddof=1)) / most)
    return find_share_interval(mean, rows / max(effect, _ROUNDING))


def find_resampled_interval(draws: Values, value: float, without: Values, rows: int) -> Interval:
    """Return the bias-corrected and accelerated bootstrap interval, BCa.

    Efron, Better bootstrap confidence intervals, JASA 1987.

    Args:
        draws: The value on each set of drawn rows.
        value: The value on all rows.
        without: The value without each group of rows, see :func:`score_without`.
        rows: How many rows there are.
    """
    slack = _ROUNDING * max(1.0, abs(value))
    if np.ptp(draws) <= slack:
        # Rows that are all right say how many others may be wrong; of other constants nothing is known.
        best = abs(value - 1.0) <= slack
        return (find_share_interval(1.0, rows)[0] if best else value), value
    below = (np.mean(draws < value - slack) + np.mean(draws <= value + slack)) / 2.0
    rim = 0.5 / len(draws)
    bias = NORMAL.inv_cdf(min(max(float(below), rim), 1.0 - rim))
    pulls = np.mean(without) - without
    spread = float(np.sum(pulls**2)) ** 1.5
    acceleration = float(np.sum(pulls**3)) / (6.0 * spread) if spread > 0.0 else 0.0
    ends = (bias - DEVIATIONS, bias + DEVIATIONS)
    levels = [NORMAL.cdf(bias + end / max(1.0 - acceleration * end, 0.1)) for end in ends]
    low, high = np.quantile(draws, levels)
    return min(float(low), value), max(float(high), value)


def score_without(scorer: Scorer, rows: int) -> Values:
    """Return the value without each row, or without each of some hundred groups of many rows (the jackknife).

    Args:
        scorer: Scores some of the rows.
        rows: How many rows there are.
    """
    if rows < 2:
        return np.asarray([scorer(np.arange(rows))])
    size = -(-rows // _MOST_GROUPS)
    kept = np.arange(rows - size)
    starts = np.arange(0, rows - size + 1, size)
    at_once = max(1, _AT_ONCE // rows)
    return np.concatenate(
        [
            score_draws(scorer, kept + size * (kept >= starts[first : first + at_once, np.newaxis]))
            for first in range(0, len(starts), at_once)
        ]
    )
