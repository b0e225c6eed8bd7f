"""Tests of whether two samples are of one kind, by exchanging their rows at random.

A permutation test is exact: if both samples are of one kind, each way of dividing the pooled rows is as
likely as the one that was seen, so that a p-value of at most ``a`` comes by chance in at most a share ``a``
of all cases, no matter what the data are like. The p-value counts the division that was seen with the others
(Phipson and Smyth 2010, https://doi.org/10.2202/1544-6115.1585).
"""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def divide_at_random(first: int, second: int, *, permutations: int, seed: int) -> NDArray[np.bool_]:
    """Return which of the pooled rows are of the first sample, for the division that was seen and for others.

    Args:
        first: How many rows the first sample has; they come first.
        second: How many the second one has.
        permutations: How many other divisions to draw.
        seed: Of the draws.

    Returns:
        Shape (1 + permutations, first + second); the first line is the division that was seen.
    """
    generator = np.random.default_rng(seed)
    lines = np.zeros((permutations + 1, first + second), dtype=bool)
    lines[:, :first] = True
    lines[1:] = generator.permuted(lines[1:], axis=1)
    return lines


def compute_p(values: Numbers) -> float:
    """Return the share of divisions whose value is at least that of the first, which was seen.

    Values that differ by rounding only are equal.
    """
    tolerance = 1e-9 * max(1.0, float(np.abs(values).max()))
    return float(np.mean(values >= values[0] - tolerance))


def compute_mmd(features: Numbers, divisions: NDArray[np.bool_]) -> Numbers:
    """Return the squared maximum mean discrepancy of each division (Gretton et al. 2012, JMLR 13).

    The kernel is Gaussian, as wide as the median distance of the pooled rows. Of the rows with themselves,
    which add the same to each division, nothing is taken away.

    Args:
        features: The pooled rows, shape (rows, width).
        divisions: As :func:`divide_at_random` returns them.
    """
    squares = np.einsum("rw,rw->r", features, features)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2.0 * features @ features.T, 0.0)
    apart = distances[np.triu_indices(len(features), 1)]
    width = float(np.median(apart)) if len(apart) else 1.0
    kernel = np.exp(-distances / (width or 1.0))
    weights = _weigh(divisions)
    discrepancies: Numbers = np.einsum("dr,dr->d", weights @ kernel, weights)
    return discrepancies


def compute_frequency_shift(presence: Numbers, divisions: NDArray[np.bool_]) -> Numbers:
    """Return how far the shares of rows that have each thing are apart, summed over all things.

    Args:
        presence: Which of the pooled rows has what, 0 or 1, shape (rows, things).
        divisions: As :func:`divide_at_random` returns them.
    """
    counts = presence.sum(axis=0)
    total, ones = len(presence), divisions.sum(axis=1)[:, None]
    first = divisions.astype(np.float64) @ presence
    shares = (first / ones, (counts - first) / (total - ones))
    both = np.maximum(shares[0] + shares[1], np.finfo(np.float64).tiny)
    shift: Numbers = ((shares[0] - shares[1]) ** 2 / both).sum(axis=1)
    return shift


def compute_order_shift(values: Numbers, divisions: NDArray[np.bool_]) -> Numbers:
    """Return the largest distance of the two cumulative distributions of a number (Kolmogorov, Smirnov).

    Args:
        values: The number of each of the pooled rows.
        divisions: As :func:`divide_at_random` returns them.
    """
    order = np.argsort(values, kind="stable")
    # Between equal values there is no step of the distribution.
    ends = np.append(np.diff(values[order]) > 0, True)
    ordered = divisions[:, order]
    ones = ordered.sum(axis=1, keepdims=True)
    first = np.cumsum(ordered, axis=1) / ones
    second = np.cumsum(~ordered, axis=1) / (ordered.shape[1] - ones)
    distances: Numbers = np.abs(first - second)[:, ends].max(axis=1)
    return distances


def _weigh(divisions: NDArray[np.bool_]) -> Numbers:
    first = divisions.sum(axis=1, keepdims=True)
    weights: Numbers = np.where(divisions, 1.0 / first, -1.0 / (divisions.shape[1] - first))
    return weights
