"""Permutation tests: exact where both samples are of one kind, and sharp where they are not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from lorry_components.drift.permutation import (
    compute_frequency_shift,
    compute_mmd,
    compute_order_shift,
    compute_p,
    divide_at_random,
)


def test_each_division_has_as_many_rows_of_each_sample() -> None:
    divisions = divide_at_random(7, 5, permutations=200, seed=0)
    assert divisions.shape == (201, 12)
    assert (divisions.sum(axis=1) == 7).all()
    assert divisions[0].tolist() == [True] * 7 + [False] * 5
    assert len({tuple(line) for line in divisions}) > 150
    # Each row is as likely in either sample.
    assert np.abs(divisions[1:].mean(axis=0) - 7 / 12).max() < 0.15


def test_a_p_value_counts_the_division_that_was_seen() -> None:
    assert compute_p(np.array([3.0, 1.0, 2.0, 2.5])) == 0.25
    assert compute_p(np.array([1.0, 1.0 + 1e-12, 2.0, 0.5])) == 0.75


def test_the_discrepancy_is_that_of_its_definition() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(6, 3)), generator.normal(0.5, size=(4, 3))
    pooled = np.concatenate([first, second])
    distances = ((pooled[:, None] - pooled[None]) ** 2).sum(axis=2)
    kernel = np.exp(-distances / np.median(distances[np.triu_indices(10, 1)]))
    expected = kernel[:6, :6].mean() + kernel[6:, 6:].mean() - 2 * kernel[:6, 6:].mean()
    found = compute_mmd(pooled, divide_at_random(6, 4, permutations=1, seed=0))
    assert found[0] == pytest.approx(expected)


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=25), st.lists(st.integers(0, 6), min_size=2, max_size=25)
)
def test_the_order_shift_is_that_of_kolmogorov_and_smirnov(first: list[int], second: list[int]) -> None:
    divisions = divide_at_random(len(first), len(second), permutations=0, seed=0)
    found = compute_order_shift(np.array([*first, *second], dtype=float), divisions)
    assert found[0] == pytest.approx(ks_2samp(first, second, method="asymp").statistic)


def test_equal_rows_shift_nothing() -> None:
    divisions = divide_at_random(10, 10, permutations=50, seed=0)
    assert compute_mmd(np.ones((20, 4)), divisions) == pytest.approx(np.zeros(51))
    assert compute_order_shift(np.ones(20), divisions).tolist() == [0.0] * 51
    assert compute_frequency_shift(np.ones((20, 3)), divisions).tolist() == [0.0] * 51
    assert compute_frequency_shift(np.zeros((20, 0)), divisions).tolist() == [0.0] * 51


@pytest.mark.parametrize("statistic", ["mmd", "frequency", "order"])
def test_false_alarms_are_as_rare_as_promised_and_shifts_are_found(statistic: str) -> None:
    generator = np.random.default_rng(1)

    def measure(shift: float) -> float:
        alarms = 0
        for trial in range(200):
            divisions = divide_at_random(30, 30, permutations=99, seed=trial)
            moved = np.repeat([0.0, shift], 30)
            if statistic == "mmd":
                values = compute_mmd(generator.normal(size=(60, 8)) + moved[:, None], divisions)
            elif statistic == "order":
                values = compute_order_shift(generator.normal(size=60) + moved, divisions)
            else:
                chances = 0.2 + 0.5 * np.minimum(moved, 1.0)
                drawn = generator.random((60, 5)) < chances[:, None]
                values = compute_frequency_shift(drawn.astype(float), divisions)
            alarms += compute_p(values) <= 0.05
        return alarms / 200

    # A share of 0.05 is 10 of 200; above 22 comes once in 5,000 times.
    assert measure(0.0) <= 0.11
    assert measure(1.0) > 0.6
