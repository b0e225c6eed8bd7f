"""Intervals against scipy's, and where plain resamples promise too much."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from lorry_components.metrics import score_accuracy, score_f1, score_matthews, score_mrr, score_rmse
from lorry_components.metrics.base import MeanScorer, Scorer, score_draws
from lorry_components.metrics.bootstrap import draw_sets, estimate_metrics
from lorry_components.metrics.intervals import (
    find_mean_interval,
    find_resampled_interval,
    find_share_interval,
    score_without,
)
from lorry_registry.manifest import MetricValue


def list_answers(right: int, wrong: int) -> tuple[list[str], list[dict[str, object]]]:
    """Return the classes of some rows, every other one "b", and answers of which so many are right."""
    truth = ["ab"[number % 2] for number in range(right + wrong)]
    other = {"a": "b", "b": "a"}
    guesses = [name if number < right else other[name] for number, name in enumerate(truth)]
    return truth, [{"label": name, "scores": {"a": 0.5, "b": 0.5}} for name in guesses]


def estimate(scorer: Scorer, rows: int) -> MetricValue:
    return estimate_metrics({"metric": scorer}, rows, resamples=1000)["metric"]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 400).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows))))
def test_a_share_has_wilsons_interval(counts: tuple[int, int]) -> None:
    right, rows = counts
    expected = binomtest(right, rows).proportion_ci(method="wilson")
    found = find_mean_interval(np.repeat([1.0, 0.0], [right, rows - right]))
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found == find_share_interval(right / rows, rows)


def test_accuracy_of_few_rows_is_no_narrower_than_these_can_tell() -> None:
    found = estimate(score_accuracy(*list_answers(20, 0)), 20)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.839, abs=0.001)
    found = estimate(score_accuracy(*list_answers(16, 4)), 20)
    assert (found.low, found.high) == pytest.approx((0.584, 0.919), abs=0.001)


@pytest.mark.parametrize("metric", [score_f1, score_matthews])
def test_classes_that_are_all_right_may_have_mistakes_that_few_rows_do_not_show(metric: object) -> None:
    lows = []
    for rows in (20, 50, 200):
        found = estimate(metric(*list_answers(rows, 0)), rows)  # type: ignore[operator]
        assert (found.value, found.high) == (1.0, 1.0)
        lows.append(found.low)
    assert 0.6 < lows[0] < lows[1] < lows[2] < 1.0


def test_rows_that_are_all_of_one_class_but_for_a_mistake_have_an_interval() -> None:
    truth = ["a"] * 29 + ["b"]
    guesses = [{"label": "a", "scores": {"a": 0.5, "b": 0.5}} for _ in truth]
    found = estimate(score_matthews(truth, guesses), 30)
    assert found.value == 0.0
    assert -0.2 < found.low <= 0.0 <= found.high < 1.0


def test_values_between_are_worth_more_rows_than_as_many_zeros_and_ones() -> None:
    generator = np.random.default_rng(0)
    values = generator.beta(8, 2, 60)
    low, high = find_mean_interval(values)
    standard = 1.96 * values.std(ddof=1) / np.sqrt(60)
    assert (low, high) == pytest.approx((values.mean() - standard, values.mean() + standard), abs=0.01)
    wilson = find_share_interval(float(values.mean()), 60)
    assert high - low < 0.6 * (wilson[1] - wilson[0])


def test_ranks_that_are_all_first_have_an_interval() -> None:
    predictions = [{"top": [("right", 0.9), ("wrong", 0.1)]}] * 30
    found = estimate(score_mrr(["right"] * 30, predictions), 30)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(30 / (30 + 1.96**2), abs=0.001)


def test_what_is_resampled_has_the_interval_of_scipys_bca() -> None:
    generator = np.random.default_rng(3)
    truth = generator.normal(size=40)
    guess = truth + generator.normal(size=40)
    scorer = score_rmse(truth.tolist(), [{"value": value} for value in guess])
    found = estimate_metrics({"rmse": scorer}, 40, resamples=10_000)["rmse"]
    expected = bootstrap(
        (truth, guess),
        lambda first, second, axis: np.sqrt(np.mean((first - second) ** 2, axis=axis)),
        paired=True,
        vectorized=True,
        method="BCa",
        n_resamples=10_000,
        rng=1,
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)


@pytest.mark.parametrize("rows", [2, 7, 500, 501, 1203])
def test_each_row_or_group_is_left_out_once(rows: int) -> None:
    values = np.random.default_rng(rows).normal(size=rows)
    without = score_without(MeanScorer(values), rows)
    size = -(-rows // 500)
    assert len(without) == rows // size
    for place in (0, len(without) // 2, len(without) - 1):
        kept = np.delete(values, slice(place * size, (place + 1) * size))
        assert without[place] == pytest.approx(kept.mean())


def test_one_row_has_an_interval_too() -> None:
    assert estimate(MeanScorer([1.0]), 1).low < 0.3
    assert estimate(MeanScorer([7.0]), 1) == MetricValue(value=7.0, low=7.0, high=7.0)


def cover(right: float, rows: int, *, times: int) -> float:
    """Return how often the interval of an accuracy covers the truth."""
    generator = np.random.default_rng(rows)
    covered = 0
    for _ in range(times):
        low, high = find_mean_interval((generator.random(rows) < right).astype(float))
        covered += low <= right <= high
    return covered / times


@pytest.mark.parametrize(("right", "rows"), [(0.98, 50), (0.95, 20), (0.8, 20), (0.99, 200)])
def test_the_interval_of_a_share_covers_the_truth_about_as_often_as_it_says(right: float, rows: int) -> None:
    assert cover(right, rows, times=1500) > 0.9


def test_draws_without_any_spread_say_what_all_right_rows_do() -> None:
    best = find_resampled_interval(np.ones(100), 1.0, np.ones(10), 30)
    assert best == (find_share_interval(1.0, 30)[0], 1.0)
    assert find_resampled_interval(np.full(100, 0.4), 0.4, np.full(10, 0.4), 30) == (0.4, 0.4)


def test_draws_come_in_sets_that_score_as_one_by_one() -> None:
    scorer = score_accuracy(*list_answers(5, 5))
    (draws,) = draw_sets(10, resamples=30, seed=2)
    assert score_draws(scorer, draws).tolist() == [scorer(draw) for draw in draws]
