"""Metrics of ranking: the rank of a right token among those ordered by likelihood."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lorry_components.metrics.base import MeanScorer, Prediction, Scorer, Target, list_right


def score_precision(targets: Sequence[Target], predictions: Sequence[Prediction], *, at: int) -> Scorer:
    """Share of rows with a right token among the first so many."""
    return MeanScorer(find_ranks(targets, predictions) <= at)


def score_precision_at_1(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Share of rows whose first token is right."""
    return score_precision(targets, predictions, at=1)


def score_precision_at_10(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Share of rows with a right token among the first ten."""
    return score_precision(targets, predictions, at=10)


def score_mrr(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Mean of 1 / rank of the first right token; 0 where it is not among the first ten."""
    return MeanScorer(1.0 / find_ranks(targets, predictions))


def find_ranks(targets: Sequence[Target], predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    """Return the rank of the first right token of each row, from 1; infinity: not among those ranked.

    Case does not count, for an uncased base cannot show it.
    """
    ranks = np.full(len(targets), np.inf)
    for index, (target, prediction) in enumerate(zip(targets, predictions, strict=True)):
        right = {str(label).strip().casefold() for label in list_right(target)}
        for rank, (token, _) in enumerate(prediction["top"], start=1):
            if token.casefold() in right:
                ranks[index] = rank
                break
    return ranks
