"""Bootstrap confidence intervals and the paired bootstrap test.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993; for comparing two systems on the same test rows,
Koehn, Statistical Significance Tests for Machine Translation Evaluation, EMNLP 2004.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from lorry_components.metrics.base import Scorer, score_draws
from lorry_registry.manifest import MetricValue

_LOW, _HIGH = 2.5, 97.5
# Numbers of rows that are drawn at once: enough to be fast, and few enough to stay in a processor's cache.
_DRAWN_AT_ONCE = 1 << 17


def draw_rows(rows: int, *, resamples: int, seed: int = 0) -> Iterator[NDArray[np.intp]]:
    """Yield the numbers of rows that are drawn with replacement, as many as there are, shape (rows,).

    Args:
        rows: How many rows there are.
        resamples: How often they are drawn.
        seed: Seeds the draws: the same seed gives the same ones.
    """
    for draws in draw_sets(rows, resamples=resamples, seed=seed):
        yield from draws


def draw_sets(rows: int, *, resamples: int, seed: int = 0) -> Iterator[NDArray[np.intp]]:
    """Yield the same numbers of rows, several sets at once, shape (sets, rows).

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
    """Return each metric with the middle 95 % of its bootstrap resamples.

    Args:
        scorers: What scores some of the rows, by the name of the metric.
        rows: How many rows there are.
        resamples: How often rows are drawn with replacement.
        seed: Seeds the draws: the same rows give the same interval.
    """
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in scorers}
    for draws in draw_sets(rows, resamples=resamples, seed=seed):
        for name, scorer in scorers.items():
            drawn[name].append(score_draws(scorer, draws))
    everything = np.arange(rows)
    estimates = {}
    for name, scorer in scorers.items():
        low, high = np.percentile(np.concatenate(drawn[name]), (_LOW, _HIGH))
        estimates[name] = MetricValue(value=scorer(everything), low=float(low), high=float(high))
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
    for draws in draw_sets(rows, resamples=resamples, seed=seed):
        gains = score_draws(candidate, draws) - score_draws(champion, draws)
        wins += int(np.count_nonzero(gains > minimum_gain))
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
