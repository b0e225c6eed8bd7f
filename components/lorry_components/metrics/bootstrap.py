"""Bootstrap confidence intervals and the paired bootstrap test.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993; for comparing two systems on the same test rows,
Koehn, Statistical Significance Tests for Machine Translation Evaluation, EMNLP 2004.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from lorry_components.metrics.base import Scorer
from lorry_registry.manifest import MetricValue

_LOW, _HIGH = 2.5, 97.5


def draw_rows(rows: int, *, resamples: int, seed: int = 0) -> Iterator[NDArray[np.intp]]:
    """Yield the numbers of rows that are drawn with replacement, as many as there are, shape (rows,).

    Args:
        rows: How many rows there are.
        resamples: How often they are drawn.
        seed: Seeds the draws: the same seed gives the same ones.
    """
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield generator.integers(0, rows, rows)


def estimate_metrics(
    scorers: Mapping[str, Scorer], rows: int, *, resamples: int, seed: int = 0
) -> dict[str, MetricValue]:
    """Return each metric with the middle 95 % of its bootstrap resamples.

    Args:
        scorers: What scores some of the rows, by the name of the metric.
        rows: How many rows there are.
        resamples: How often rows are drawn with replacement.
        seed: Seeds the draws: the same rows give the same interval.
    """
    draws = list(draw_rows(rows, resamples=resamples, seed=seed))
    everything = np.arange(rows)
    estimates = {}
    for name, score in scorers.items():
        low, high = np.percentile([score(draw) for draw in draws], (_LOW, _HIGH))
        estimates[name] = MetricValue(value=score(everything), low=float(low), high=float(high))
    return estimates


def estimate_gain_confidence(
    candidate: Scorer,
    champion: Scorer,
    rows: int,
    *,
    minimum_gain: float,
    resamples: int,
    seed: int = 0,
) -> float:
    """Return the share of resamples in which the candidate beats the champion by more than a minimum.

    Both are scored on the same drawn rows each time, so that what is hard for both cancels out.

    Args:
        candidate: Scores the candidate on some of the rows; more is better.
        champion: Scores the champion on the same rows.
        rows: How many rows there are.
        minimum_gain: The gain that has to be exceeded.
        resamples: How often rows are drawn with replacement.
        seed: Seeds the draws.
    """
    wins = 0
    for draw in draw_rows(rows, resamples=resamples, seed=seed):
        wins += candidate(draw) - champion(draw) > minimum_gain
    return wins / resamples


def estimate_difference(
    candidate: Scorer, other: Scorer, rows: int, *, resamples: int, seed: int = 0
) -> MetricValue:
    """Return how much better one is than another on the same rows, with the middle 95 % of paired resamples.

    Args:
        candidate: Scores the one on some of the rows.
        other: Scores the other on the same rows.
        rows: How many rows there are.
        resamples: How often rows are drawn with replacement.
        seed: Seeds the draws.
    """
    everything = np.arange(rows)
    drawn = [candidate(draw) - other(draw) for draw in draw_rows(rows, resamples=resamples, seed=seed)]
    low, high = np.percentile(drawn, (_LOW, _HIGH))
    return MetricValue(value=candidate(everything) - other(everything), low=float(low), high=float(high))
