"""What changed, in words."""

import pytest

from lorry_components.tasks.changes import compare_recipes


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"a": 1}, {"a": 1}, ""),
        (
            {"train": {"learning_rate": 0.001}},
            {"train": {"learning_rate": 0.003}},
            "train.learning_rate 0.001 -> 0.003",
        ),
        (
            {"train": {"learning_rate": None}},
            {"train": {"learning_rate": 3e-3}},
            "train.learning_rate the default -> 0.003",
        ),
        ({"method": {"options": {"r": 4}}}, {"method": {"options": {}}}, "method.r 4 -> the default"),
        ({}, {"head": {"init": "probe"}}, "head.init the default -> probe"),
        ({"primary": "f1"}, {}, "evaluate.primary f1 -> the default"),
        ({"text": "x" * 50}, {"text": "y"}, f"text {'x' * 40}... -> y"),
        (
            dict.fromkeys("abcdef", 1),
            dict.fromkeys("abcdef", 2),
            "a 1 -> 2, b 1 -> 2, c 1 -> 2, d 1 -> 2, and 2 more",
        ),
    ],
)
def test_fields_that_differ_are_told_with_both_values(
    before: dict[str, object], now: dict[str, object], told: str
) -> None:
    assert compare_recipes(before, now) == told  # type: ignore[arg-type]
