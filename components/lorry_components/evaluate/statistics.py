"""Bootstrap confidence intervals and the paired bootstrap test.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993; for comparing two systems on the same test rows,
Koehn, Statistical Significance Tests for Machine Translation Evaluation, EMNLP 2004.
"""

from collections.abc import Callable, Mapping

import numpy as np

from lorry_components.kinds.base import Values
from lorry_registry.manifest import MetricValue

Metric = Callable[[Values, Values], float]
_LOW, _HIGH = 2.5, 97.5


def estimate_metrics(
    metrics: Mapping[str, Metric], truth: Values, guess: Values, *, resamples: int, seed: int = 0
) -> dict[str, MetricValue]:
    """Return each metric with the middle 95 % of its bootstrap resamples.

    Args:
        metrics: The metrics, by name.
        truth: True values, shape (rows,).
        guess: Predicted values, shape (rows,).
        resamples: How often rows are drawn with replacement.
        seed: Seeds the draws: the same rows give the same interval.
    """
    generator = np.random.default_rng(seed)
    draws = [generator.integers(0, len(truth), len(truth)) for _ in range(resamples)]
    estimates = {}
    for name, metric in metrics.items():
        values = [metric(truth[draw], guess[draw]) for draw in draws]
        low, high = np.percentile(values, (_LOW, _HIGH))
        estimates[name] = MetricValue(value=metric(truth, guess), low=float(low), high=float(high))
    return estimates


def estimate_gain_confidence(
    metric: Metric,
    truth: Values,
    candidate: Values,
    champion: Values,
    *,
    minimum_gain: float,
    resamples: int,
    seed: int = 0,
) -> float:
    """Return the share of resamples in which the candidate beats the champion by more than a minimum.

    Both are scored on the same drawn rows each time, so that what is hard for both cancels out.

    Args:
        metric: The metric; more is better.
        truth: True values, shape (rows,).
        candidate: The candidate's values for the same rows.
        champion: The champion's values for the same rows.
        minimum_gain: The gain that has to be exceeded.
        resamples: How often rows are drawn with replacement.
        seed: Seeds the draws.
    """
    generator = np.random.default_rng(seed)
    wins = 0
    for _ in range(resamples):
        draw = generator.integers(0, len(truth), len(truth))
        gain = metric(truth[draw], candidate[draw]) - metric(truth[draw], champion[draw])
        wins += gain > minimum_gain
    return wins / resamples
