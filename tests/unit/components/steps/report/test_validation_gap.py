"""Validation and test scores that differ by more than chance: told, and luck is not."""

from typing import Any

import numpy as np
import pytest

from lorry_components.metrics import estimate_metrics
from lorry_components.metrics.base import MeanScorer
from lorry_components.steps.report.validation_gap import describe_validation_gap


def make_details(
    validation: float, test: float, *, rows: int = 300, test_rows: int = 1000, **changes: Any
) -> dict[str, dict[str, Any]]:
    right = np.arange(test_rows) < test * test_rows
    found = estimate_metrics({"accuracy": MeanScorer(right)}, test_rows, resamples=100)["accuracy"]
    return {
        "prepare_data": {"rows": {"train": 2000, "validation": rows, "test": test_rows}},
        "finetune": {"curve": {"metric": "accuracy", "losses": [], "scores": [[0, 0.5], [90, validation]]}},
        "evaluate": {
            "metric": "accuracy",
            "metric_title": "accuracy",
            "value": found.value,
            "interval": [found.low, found.high],
            "examples": test_rows,
        },
    } | changes


def test_parts_of_different_kinds_are_told() -> None:
    assert describe_validation_gap(make_details(0.76, 0.5)).startswith(
        "accuracy is 0.760 on the 300 validation rows and 0.500 on the 1,000 test rows (-0.260), a gap"
    )
    assert describe_validation_gap(make_details(0.5, 0.76))


@pytest.mark.parametrize(
    ("validation", "test", "rows"), [(0.76, 0.74, 300), (0.9, 0.99, 10), (1.0, 0.8, 5), (0.6, 0.8, 10)]
)
def test_what_few_rows_do_by_chance_is_not_told(validation: float, test: float, rows: int) -> None:
    assert describe_validation_gap(make_details(validation, test, rows=rows)) == ""


@pytest.mark.parametrize("truth", [0.6, 0.9, 0.98])
def test_luck_is_seldom_taken_for_a_gap(truth: float) -> None:
    generator = np.random.default_rng(1)
    drawn = generator.binomial([100, 200], truth, size=(600, 2)) / [100, 200]
    told = [bool(describe_validation_gap(make_details(*pair, rows=100, test_rows=200))) for pair in drawn]
    assert np.mean(told) < 0.03


@pytest.mark.parametrize(
    "changes",
    [
        {"finetune": {}},
        {"finetune": {"curve": {"metric": "loss", "losses": [], "scores": [[1, 0.7]]}}},
        {"finetune": {"curve": {"metric": "accuracy", "losses": [], "scores": []}}},
        {"finetune": {"curve": "damaged"}},
        {"prepare_data": {"rows": {"validation": "many"}}},
        {"prepare_data": {"rows": {"validation": 0}}},
        {"evaluate": {}},
    ],
)
def test_what_is_not_known_is_not_told(changes: dict[str, Any]) -> None:
    assert describe_validation_gap(make_details(0.9, 0.4, **changes)) == ""
    assert describe_validation_gap({}) == ""


def test_a_training_that_was_given_up_says_nothing_of_its_validation_rows() -> None:
    details = make_details(0.9, 0.4)
    details["finetune"]["kept_start"] = "accuracy on validation was 0.9 when training began"
    assert describe_validation_gap(details) == ""
