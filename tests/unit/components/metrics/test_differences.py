"""Differences on the same rows: how sure a gain is, and its interval."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lorry_components.metrics import score_accuracy, score_f1, score_pearson
from lorry_components.metrics.base import MeanScorer, average_scorers
from lorry_components.metrics.differences import Difference, estimate_difference

Flags = list[tuple[int, int]]


def compare(flags: Flags) -> Difference:
    first, second = (MeanScorer(side) for side in zip(*flags, strict=True))
    return estimate_difference(first, second, len(flags))


def list_flags(better: int, worse: int, rows: int) -> Flags:
    return [(1, 0)] * better + [(0, 1)] * worse + [(1, 1)] * (rows - better - worse)


@pytest.mark.parametrize(("better", "worse", "rows"), [(5, 0, 50), (12, 3, 100), (0, 0, 30), (40, 20, 80)])
def test_right_and_wrong_rows_have_the_interval_of_agresti_and_min(
    better: int, worse: int, rows: int
) -> None:
    # Half a row more in each of the four cells, and Wald's interval of that table.
    more, less, all_rows = better + 0.5, worse + 0.5, rows + 2.0
    middle = (more - less) / all_rows
    error = np.sqrt(((more + less) - (more - less) ** 2 / all_rows) / all_rows**2)
    found = compare(list_flags(better, worse, rows))
    assert found.value == pytest.approx((better - worse) / rows)
    assert found.middle == pytest.approx(middle)
    assert found.error == pytest.approx(error, rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    flags=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30),
    gains=st.tuples(st.floats(0.0, 0.5), st.floats(0.0, 0.5)),
)
def test_confidence_falls_with_the_gain_that_is_asked_for_and_is_of_one_side_only(
    flags: Flags, gains: tuple[float, float]
) -> None:
    found, turned = compare(flags), compare([(second, first) for first, second in flags])
    less, more = sorted(gains)
    assert found.find_confidence(more) <= found.find_confidence(less)
    assert found.find_confidence() + turned.find_confidence() == pytest.approx(1.0)
    assert found.low <= found.value <= found.high
    assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low))


def test_an_interval_and_a_decision_come_of_one_estimate() -> None:
    for better in range(12):
        found = compare(list_flags(better, 2, 60))
        assert (found.low > 0.0) == (found.find_confidence() > 0.975)


def test_three_better_rows_and_no_worse_one_are_no_certainty() -> None:
    # Of 20 rows: a sign test gives p = 1/8, and 96 % of plain resamples show a gain.
    assert 0.85 < compare(list_flags(3, 0, 20)).find_confidence() < 0.95


def test_rows_that_do_not_differ_at_all_leave_room_for_a_difference() -> None:
    found = compare([(1, 1)] * 50)
    assert found.find_confidence() == pytest.approx(0.5)
    assert found.low == pytest.approx(-found.high)
    assert 0.02 < found.high < 0.08
    assert compare([(0, 0)] * 50) == found


def test_pairing_finds_a_gain_that_is_small_beside_the_noise() -> None:
    # The candidate mends 25 rows of 500 and breaks none: the intervals of both overlap.
    assert compare([(1, 0)] * 25 + [(1, 1)] * 375 + [(0, 0)] * 100).find_confidence() > 0.999


def draw_numbers(noise: float, rows: int, seed: int) -> tuple[NDArray[Any], list[dict[str, float]]]:
    truth = np.random.default_rng(1).normal(size=rows)
    guess = truth + noise * np.random.default_rng(seed).normal(size=rows)
    return truth, [{"value": float(value)} for value in guess]


@pytest.mark.parametrize(
    ("noises", "low", "high"),
    [((0.3, 1.5), 0.99, 1.0), ((1.5, 0.3), 0.0, 0.01), ((1.0, 1.0), 0.02, 0.98)],
)
def test_correlations_are_compared_by_what_each_row_adds(
    noises: tuple[float, float], low: float, high: float
) -> None:
    scorers = []
    for seed, noise in enumerate(noises):
        truth, guess = draw_numbers(noise, 200, seed + 5)
        scorers.append(score_pearson(truth.tolist(), guess))
    found = estimate_difference(*scorers, 200)
    assert low <= found.find_confidence() <= high
    assert found.find_confidence(2.0) < 1e-6


def test_a_mean_and_another_metric_are_compared_too() -> None:
    truth = ["a", "b"] * 300
    guess = [{"label": "ab"[number % 3 == 1], "scores": {"a": 0, "b": 0}} for number in range(600)]
    found = estimate_difference(score_accuracy(truth, guess), score_f1(truth, guess), 600)
    assert found.low < found.value < found.high


def draw_flags(better: float, worse: float, rows: int, generator: np.random.Generator) -> Difference:
    drawn = generator.random(rows)
    first = (drawn >= worse).astype(float)
    second = 1.0 - ((drawn >= worse) & (drawn < worse + better))
    return estimate_difference(MeanScorer(first), MeanScorer(second), rows)


@pytest.mark.parametrize(("changed", "rows"), [(0.05, 20), (0.1, 20), (0.2, 20), (0.05, 50), (0.2, 200)])
def test_luck_passes_a_test_no_more_often_than_it_may(changed: float, rows: int) -> None:
    generator = np.random.default_rng(7)
    passed = [draw_flags(changed, changed, rows, generator).find_confidence() >= 0.95 for _ in range(1500)]
    assert np.mean(passed) < 0.07


def test_several_seeds_are_one_scorer_of_their_mean() -> None:
    truth = ["a", "b"] * 5
    guesses = [
        [{"label": name, "scores": {"a": 0, "b": 0}} for name in truth],
        [{"label": "a", "scores": {"a": 0, "b": 0}}] * 10,
    ]
    everything = np.arange(10)
    for metric in (score_accuracy, score_f1):
        scorers = [metric(truth, guess) for guess in guesses]
        mean = average_scorers(scorers)
        assert mean(everything) == pytest.approx(np.mean([each(everything) for each in scorers]))
    assert average_scorers(scorers[:1]) is scorers[0]
    assert isinstance(average_scorers([score_accuracy(truth, guess) for guess in guesses]), MeanScorer)
