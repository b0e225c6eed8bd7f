"""Bootstrap intervals, and the paired test."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lorry_components.metrics.base import Scorer
from lorry_components.metrics.bootstrap import estimate_gain_confidence, estimate_metrics
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


def test_a_perfect_and_a_single_prediction_have_a_point_for_an_interval() -> None:
    truth = np.asarray(["a", "b"] * 20)
    found = estimate_metrics({"accuracy": score(compute_accuracy, truth, truth)}, len(truth), resamples=100)[
        "accuracy"
    ]
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    single = np.asarray([1.0])
    found = estimate_metrics({"pearson": score(compute_pearson, single, single)}, len(single), resamples=100)[
        "pearson"
    ]
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


@pytest.fixture
def judge() -> Callable[..., float]:
    def start(candidate: float, champion: float, gain: float = 0.0, **options: int) -> float:
        truth, first = draw_regression(candidate)
        second = truth + champion * np.random.default_rng(9).normal(size=len(truth))
        return estimate_gain_confidence(
            score(compute_pearson, truth, first),
            score(compute_pearson, truth, second),
            len(truth),
            minimum_gain=gain,
            **{"resamples": 400, **options},
        )

    return start


def test_a_clearly_better_candidate_is_trusted(judge: Callable[..., float]) -> None:
    assert judge(0.3, 1.5) > 0.99


def test_a_clearly_worse_candidate_is_not(judge: Callable[..., float]) -> None:
    assert judge(1.5, 0.3) < 0.01


def test_between_equals_there_is_doubt(judge: Callable[..., float]) -> None:
    assert 0.02 < judge(1.0, 1.0) < 0.98


def test_the_same_predictions_are_no_gain() -> None:
    truth, guess = draw_regression(0.5)
    confidence = estimate_gain_confidence(
        score(compute_pearson, truth, guess),
        score(compute_pearson, truth, guess),
        len(truth),
        minimum_gain=0.0,
        resamples=200,
    )
    assert confidence == 0.0


def test_the_gain_has_to_exceed_the_minimum(judge: Callable[..., float]) -> None:
    confidences = [judge(0.3, 1.0, gain) for gain in (0.0, 0.1, 0.25, 0.5, 1.0)]
    assert confidences == sorted(confidences, reverse=True)
    assert confidences[0] > 0.99
    assert confidences[-1] == 0.0


def test_pairing_finds_a_gain_that_is_small_beside_the_noise() -> None:
    # The candidate mends five rows of 500 and breaks none: intervals overlap, and yet it is never worse.
    truth = np.asarray(["a", "b"] * 250)
    champion = np.where(np.arange(500) % 5 == 0, "c", truth)
    candidate = champion.copy()
    candidate[:25] = truth[:25]
    confidence = estimate_gain_confidence(
        score(compute_accuracy, truth, candidate),
        score(compute_accuracy, truth, champion),
        500,
        minimum_gain=0.0,
        resamples=400,
    )
    assert confidence > 0.95
    intervals = [
        estimate_metrics({"accuracy": score(compute_accuracy, truth, guess)}, len(truth), resamples=400)[
            "accuracy"
        ]
        for guess in (candidate, champion)
    ]
    assert intervals[0].low < intervals[1].high


def test_the_test_is_seeded(judge: Callable[..., float]) -> None:
    assert judge(0.9, 1.0) == judge(0.9, 1.0)
    assert len({judge(0.9, 1.0, seed=seed) for seed in range(5)}) > 1


def test_rows_of_a_rare_class_may_be_missing_from_a_resample() -> None:
    truth = ["common"] * 60 + ["rare"]
    guess = [{"label": "common", "scores": {"common": 0.9, "rare": 0.1}}] * 61
    found = estimate_metrics({"f1": score_f1(truth, guess)}, 61, resamples=200)["f1"]
    assert 0.0 <= found.low <= found.high <= 1.0
