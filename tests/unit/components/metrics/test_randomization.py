"""The paired randomisation test: exact for few rows, for any metric."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from lorry_components.metrics.base import Prediction
from lorry_components.metrics.classification import score_accuracy, score_f1
from lorry_components.metrics.numbers import score_pearson
from lorry_components.metrics.randomization import estimate_chance_of_loss


def answer(right: str) -> list[Prediction]:
    """Return predictions of rows whose label is ``a``; ``-`` is a wrong one."""
    return [{"label": "a" if letter == "+" else "b"} for letter in right]


@pytest.mark.parametrize(
    ("ours", "others"),
    [
        ("++++-", "+++++"),
        ("--+++", "+++++"),
        ("---++", "+++++"),
        ("----+", "+++++"),
        ("+---++--", "-+++++++"),
    ],
)
def test_it_is_the_sign_test_for_an_accuracy(ours: str, others: str) -> None:
    gained, lost = (
        sum(pair == wanted for pair in zip(ours, others, strict=True)) for wanted in (("+", "-"), ("-", "+"))
    )
    found = estimate_chance_of_loss(
        score_accuracy, ["a"] * len(ours), answer(ours), answer(others), resamples=20_000
    )
    assert found.value == pytest.approx(ours.count("+") / len(ours))
    assert found.other == pytest.approx(others.count("+") / len(ours))
    assert found.chance == pytest.approx(binom.cdf(gained, gained + lost, 0.5), abs=0.02)


@pytest.mark.parametrize(("ours", "others"), [("+++++", "++++-"), ("+-+-+", "-++-+"), ("-----", "-----")])
def test_who_is_not_below_does_not_lose(ours: str, others: str) -> None:
    found = estimate_chance_of_loss(score_accuracy, ["a"] * 5, answer(ours), answer(others), resamples=100)
    assert found.chance == 1.0


def test_it_swaps_rows_for_metrics_that_are_no_means() -> None:
    """Against all swaps of few rows, one by one."""
    draw = np.random.default_rng(1)
    targets = [*draw.normal(size=8)]
    others = [{"value": target + noise} for target, noise in zip(targets, draw.normal(size=8), strict=True)]
    ours = [{"value": value} for value in draw.normal(size=8)]
    found = estimate_chance_of_loss(score_pearson, targets, ours, others, resamples=20_000)

    def compare(swap: tuple[bool, ...]) -> float:
        sides = [(b, a) if swapped else (a, b) for a, b, swapped in zip(ours, others, swap, strict=True)]
        one, other = zip(*sides, strict=True)
        rows = np.arange(8)
        return score_pearson(targets, one)(rows) - score_pearson(targets, other)(rows)

    differences = [compare(swap) for swap in product([False, True], repeat=8)]
    assert differences[0] < 0
    exact = np.mean([difference <= differences[0] + 1e-12 for difference in differences])
    assert found.chance == pytest.approx(exact, abs=0.02)


def test_the_same_seed_gives_the_same_chance() -> None:
    targets = ["a", "b"] * 10
    scores = {"a": 0.5, "b": 0.5}
    ours: list[Prediction] = [{"label": "a", "scores": scores}] * 20
    others: list[Prediction] = [{"label": label, "scores": scores} for label in "abbba" * 4]
    found = {
        estimate_chance_of_loss(score_f1, targets, ours, others, resamples=300, seed=3) for _ in range(2)
    }
    assert len(found) == 1
