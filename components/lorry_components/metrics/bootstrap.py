"""Draws of rows with replacement, and the metrics of a test part with their intervals.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from lorry_components.metrics.base import MeanScorer, Scorer, score_draws
from lorry_components.metrics.classification import SmoothedClassScorer
from lorry_components.metrics.intervals import (
    Interval,
    find_mean_interval,
    find_resampled_interval,
    score_without,
)
from lorry_registry.manifest import MetricValue

_MIDDLE = (0.025, 0.975)
# Numbers of rows that are drawn at once: enough to be fast, and few enough to stay in a processor's cache.
_DRAWN_AT_ONCE = 1 << 17
# Of weights of rows: more do not move the ends of an interval.
_MOST_WEIGHTS = 2000


def draw_sets(rows: int, *, resamples: int, seed: int = 0) -> Iterator[NDArray[np.intp]]:
    """Yield numbers of rows that are drawn with replacement, several sets at once, shape (sets, rows).

    The fewer are drawn at once the more rows there are, so that what they take of memory does not grow.

    Args:
        rows: How many rows there are.
        resamples: How often they are drawn.
        seed: Seeds the draws: the same seed gives the same ones.
    """
    generator = np.random.default_rng(seed)
    size = max(1, _DRAWN_AT_ONCE // max(1, rows))
    for done in range(0, resamples, size):
        yield generator.integers(0, rows, (min(size, resamples - done), rows))


def estimate_metrics(
    scorers: Mapping[str, Scorer], rows: int, *, resamples: int, seed: int = 0
) -> dict[str, MetricValue]:
    """Return each metric with its 95 % interval.

    A mean of values from 0 to 1 has Wilson's, F1 of a class and Matthews correlation have that of smoothed
    weights of rows, all others have the bootstrap's.

    Args:
        scorers: What scores some of the rows, by the name of the metric.
        rows: How many rows there are.
        resamples: How often rows are drawn with replacement.
        seed: Seeds the draws: the same rows give the same interval.
    """
    known = {name: _find_interval(scorer, resamples=resamples, seed=seed) for name, scorer in scorers.items()}
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in scorers if known[name] is None}
    for draws in draw_sets(rows, resamples=resamples, seed=seed) if drawn else ():
        for name, values in drawn.items():
            values.append(score_draws(scorers[name], draws))
    everything = np.arange(rows)
    estimates = {}
    for name, scorer in scorers.items():
        value = scorer(everything)
        low, high = known[name] or find_resampled_interval(
            np.concatenate(drawn[name]), value, score_without(scorer, rows), rows
        )
        # Rounding must not leave the value outside.
        estimates[name] = MetricValue(value=value, low=min(low, value), high=max(high, value))
    return estimates


def _find_interval(scorer: Scorer, *, resamples: int, seed: int) -> Interval | None:
    """Return the interval of a value that needs no draws of rows; None: it needs them."""
    if isinstance(scorer, MeanScorer) and scorer.values.min() >= 0.0 and scorer.values.max() <= 1.0:
        return find_mean_interval(scorer.values)
    if isinstance(scorer, SmoothedClassScorer):
        values = scorer.draw_smoothed(resamples=min(resamples, _MOST_WEIGHTS), seed=seed)
        low, high = np.quantile(values, _MIDDLE)
        return float(low), float(high)
    return None
