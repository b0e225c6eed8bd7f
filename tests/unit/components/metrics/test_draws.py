"""Many sets of rows scored at once: the same draws, the same values, and little memory."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import f1_score, matthews_corrcoef

from lorry_components.metrics import (
    Metric,
    score_accuracy,
    score_bleu,
    score_denoising,
    score_f1,
    score_matthews,
    score_nist,
    score_pearson,
    score_rmse,
    score_spearman,
)
from lorry_components.metrics.base import Prediction, Scorer, score_draws
from lorry_components.metrics.bootstrap import draw_sets, estimate_metrics
from lorry_components.metrics.differences import estimate_difference

Drawn = tuple[list[Any], list[Prediction]]


def draw_classes(classes: int, rows: int, *, accuracy: float = 0.6) -> Drawn:
    generator = np.random.default_rng(classes)
    truth = generator.integers(0, classes, rows)
    guess = np.where(generator.random(rows) < accuracy, truth, generator.integers(0, classes, rows))
    names = [f"class {number}" for number in range(classes)]
    scores = dict.fromkeys(names, 0.0)
    return [names[one] for one in truth], [{"label": names[one], "scores": scores} for one in guess]


def draw_numbers(rows: int, *, decimals: int) -> Drawn:
    generator = np.random.default_rng(rows)
    truth = np.round(generator.normal(size=rows), decimals)
    guess = np.round(truth + generator.normal(size=rows), decimals)
    return truth.tolist(), [{"value": float(value)} for value in guess]


def draw_texts(rows: int) -> Drawn:
    generator = np.random.default_rng(rows)
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "a", "dog", "ran", "far", "away"]
    texts = [" ".join(generator.choice(words, 6)) for _ in range(3 * rows)]
    return list(zip(texts[:rows], texts[rows:-rows], strict=True)), [{"text": text} for text in texts[-rows:]]


def draw_noise(rows: int) -> Drawn:
    generator = np.random.default_rng(rows)
    return [""] * rows, [{"noise_error": float(one), "noise_power": 1.0} for one in generator.random(rows)]


def take_every_row(rows: int) -> list[Any]:
    return [np.full(rows, 0), np.arange(rows), *np.concatenate(list(draw_sets(rows, resamples=40)))]


def test_draws_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    expected = [generator.integers(0, 37, 37) for _ in range(50)]
    assert_array_equal(np.concatenate(list(draw_sets(37, resamples=50, seed=3))), expected)
    monkeypatch.setattr("lorry_components.metrics.bootstrap._DRAWN_AT_ONCE", 37 * 7)
    sets = list(draw_sets(37, resamples=50, seed=3))
    assert [len(drawn) for drawn in sets] == [7] * 7 + [1]
    assert_array_equal(np.concatenate(sets), expected)


@pytest.mark.parametrize(
    ("metric", "drawn"),
    [
        (score_accuracy, draw_classes(6, 100)),
        (score_f1, draw_classes(2, 100)),
        (score_f1, draw_classes(30, 100)),
        (score_matthews, draw_classes(2, 100)),
        (score_matthews, draw_classes(30, 100)),
        (score_rmse, draw_numbers(100, decimals=3)),
        (score_pearson, draw_numbers(100, decimals=3)),
        (score_spearman, draw_numbers(100, decimals=0)),
        (score_bleu, draw_texts(20)),
        (score_nist, draw_texts(20)),
        (score_denoising, draw_noise(20)),
    ],
)
def test_many_sets_of_rows_score_like_each_by_itself(metric: Metric, drawn: Drawn) -> None:
    score = metric(*drawn)
    draws = take_every_row(len(drawn[0]))
    found = score_draws(score, np.asarray(draws))
    assert len(set(found.tolist())) > 10
    assert_allclose(found, [score(draw) for draw in draws], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("classes", [2, 3, 30])
def test_counts_give_what_sklearn_gives_to_the_last_bit(classes: int) -> None:
    truth, predictions = draw_classes(classes, 60)
    guess = [prediction["label"] for prediction in predictions]
    names, options = sorted(predictions[0]["scores"]), {"zero_division": 0.0}
    average = {"pos_label": 1} if classes == 2 else {"average": "macro"}
    numbers = [np.asarray([names.index(name) for name in side]) for side in (truth, guess)]
    f1, matthews = score_f1(truth, predictions), score_matthews(truth, predictions)
    for draw in take_every_row(60)[1:]:
        first, second = (side[draw] for side in numbers)
        assert f1(draw) == f1_score(first, second, **average, **options)
        assert matthews(draw) == matthews_corrcoef(first, second)


def test_a_set_of_rows_with_one_class_has_no_matthews_correlation() -> None:
    truth, predictions = draw_classes(3, 30)
    draw = np.full((1, 30), 0)
    assert score_draws(score_matthews(truth, predictions), draw)[0] == 0.0


@pytest.mark.parametrize("metric", [score_pearson, score_spearman])
def test_numbers_that_are_all_equal_have_no_correlation(metric: Metric) -> None:
    # Their mean is not quite 0.1, and a correlation of the roundings would be one of nothing.
    score = metric([0.1, 0.1, 0.1], [{"value": 0.3}, {"value": 0.5}, {"value": 0.4}])
    assert score_draws(score, np.asarray([[0, 1, 2], [0, 0, 1]])).tolist() == [0.0, 0.0]


def measure_peak(call: Callable[[], object]) -> int:
    """Return the bytes that a call allocates at most at one time."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bootstrap_of_many_rows_holds_few_draws_at_a_time() -> None:
    truth, predictions = draw_classes(3, 20_000)
    metrics: dict[str, Scorer] = {"f1": score_f1(truth, predictions)}
    first, second = score_accuracy(truth, predictions), score_f1(truth, predictions)

    def estimate() -> None:
        estimate_metrics(metrics, len(truth), resamples=200)

    def compare() -> None:
        estimate_difference(first, second, len(truth))

    # All draws are 32 MB.
    assert measure_peak(estimate) < 12 << 20
    assert measure_peak(compare) < 12 << 20
