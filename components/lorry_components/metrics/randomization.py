"""The paired randomisation test.

Noreen, Computer-Intensive Methods for Testing Hypotheses, 1989; for comparing two systems on the same rows,
Yeh, More Accurate Tests for the Statistical Significance of Result Differences, COLING 2000. Unlike a
bootstrap, it is exact however few the rows are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorry_components.metrics.base import Metric, Prediction, Target, score_draws

# Sums in another order differ in their last digits.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Loss:
    """How one model compares with another on the same rows.

    Attributes:
        value: The metric of the one.
        other: The metric of the other.
        chance: How likely the one is to lose by as much if the two are equally good; 1: it does not lose.
    """

    value: float
    other: float
    chance: float


def estimate_chance_of_loss(
    metric: Metric,
    targets: Sequence[Target],
    predictions: Sequence[Prediction],
    others: Sequence[Prediction],
    *,
    resamples: int,
    seed: int = 0,
) -> Loss:
    """Test whether predictions are worse than others for the same rows.

    If the two are equally good, who made which of the two predictions for a row means nothing: they are
    swapped at random, row by row.

    Args:
        metric: The metric; more is better.
        targets: What is right.
        predictions: The predictions of the one.
        others: Those of the other.
        resamples: How often predictions are swapped.
        seed: Seeds the swaps.
    """
    count = len(targets)
    scorer = metric([*targets, *targets], [*predictions, *others])
    rows = np.arange(count)
    value, other = scorer(rows), scorer(rows + count)
    if not value < other:
        return Loss(value, other, 1.0)
    swaps = count * np.random.default_rng(seed).integers(0, 2, (resamples, count))
    differences = score_draws(scorer, rows + swaps) - score_draws(scorer, rows + count - swaps)
    lost = int(np.count_nonzero(differences <= value - other + _ROUNDING))
    return Loss(value, other, (lost + 1) / (resamples + 1))
