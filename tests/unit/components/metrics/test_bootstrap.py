"""Metrics with their intervals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lorry_components.metrics.base import Scorer
from lorry_components.metrics.bootstrap import estimate_metrics
from lorry_components.metrics.classification import score_f1
from lorry_components.metrics.numbers import compute_pearson, compute_rmse

Values = NDArray[Any]


def score(metric: Callable[[Values, Values], float], truth: Values, guess: Values) -> Scorer:
    return lambda draw: metric(truth[draw], guess[draw])


def compute_accuracy(truth: Values, guess: Values) -> float:
    return float(np.mean(truth == guess))


def draw_regression(noise: float, rows: int = 200, seed: int = 0) -> tuple[Values, Values]:
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=rows)
    return truth, truth + noise * np.random.default_rng(seed + 1).normal(size=rows)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 120), st.floats(0.05, 3.0))
def test_the_interval_covers_the_value(seed: int, rows: int, noise: float) -> None:
    truth, guess = draw_regression(noise, rows, seed)
    found = estimate_metrics({"rmse": score(compute_rmse, truth, guess)}, len(truth), resamples=200)["rmse"]
    assert found.value == compute_rmse(truth, guess)
    assert found.low <= found.high
    # The middle of the resamples; a skewed metric may lie at its edge.
    width = found.high - found.low
    assert found.low - 0.5 * width <= found.value <= found.high + 0.5 * width


def test_the_interval_is_that_of_the_literature() -> None:
    # A share of 1,000 rows: its standard error is known.
    truth = np.asarray(["good"] * 1000)
    guess = np.asarray(["good"] * 800 + ["bad"] * 200)
    found = estimate_metrics({"accuracy": score(compute_accuracy, truth, guess)}, len(truth), resamples=2000)[
        "accuracy"
    ]
    error = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    assert found.value == 0.8
    assert found.low == pytest.approx(0.8 - error, abs=0.004)
    assert found.high == pytest.approx(0.8 + error, abs=0.004)


def test_the_interval_narrows_with_more_rows() -> None:
    widths = []
    for rows in (50, 500, 5000):
        truth, guess = draw_regression(0.7, rows)
        found = estimate_metrics(
            {"pearson": score(compute_pearson, truth, guess)}, len(truth), resamples=200
        )["pearson"]
        widths.append(found.high - found.low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_the_same_rows_give_the_same_interval() -> None:
    truth, guess = draw_regression(0.7)
    metrics = {"pearson": score(compute_pearson, truth, guess), "rmse": score(compute_rmse, truth, guess)}
    first = estimate_metrics(metrics, len(truth), resamples=100)
    assert first == estimate_metrics(metrics, len(truth), resamples=100)
    assert first != estimate_metrics(metrics, len(truth), resamples=100, seed=1)
    # Each metric sees the same draws, whichever others are asked for.
    alone = estimate_metrics({"rmse": score(compute_rmse, truth, guess)}, len(truth), resamples=100)
    assert alone["rmse"] == first["rmse"]


def test_a_single_prediction_has_a_point_for_an_interval() -> None:
    single = np.asarray([1.0])
    found = estimate_metrics({"pearson": score(compute_pearson, single, single)}, len(single), resamples=100)[
        "pearson"
    ]
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_rows_of_a_rare_class_may_be_missing_from_a_resample() -> None:
    truth = ["common"] * 60 + ["rare"]
    guess = [{"label": "common", "scores": {"common": 0.9, "rare": 0.1}}] * 61
    found = estimate_metrics({"f1": score_f1(truth, guess)}, 61, resamples=200)["f1"]
    assert 0.0 <= found.low <= found.high <= 1.0
