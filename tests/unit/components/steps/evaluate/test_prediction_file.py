"""Predictions in a file: what is written is read, a part at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lorry_components.steps.evaluate.prediction_file import StoredPredictions, write_predictions

# U+2028 ends a line for some readers of text.
PREDICTIONS = [{"label": f"a\u2028{number}", "score": number / 3} for number in range(7)]
FIELDS = [{"text": f"one\ntext {number}"} for number in range(7)]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    stored = write_predictions(path, FIELDS, [PREDICTIONS[:3], [], PREDICTIONS[3:]])
    for found in (stored, StoredPredictions(path)):
        assert len(found) == 7
        assert list(found) == PREDICTIONS
        assert [found[index] for index in (0, 6, -1, 2)] == [PREDICTIONS[index] for index in (0, 6, -1, 2)]
        assert found[:1] == PREDICTIONS[:1]
        assert found[1:6:2] == PREDICTIONS[1:6:2]
        with pytest.raises(IndexError):
            found[7]


def test_parts_are_written_before_the_next_is_predicted(tmp_path: Path) -> None:
    held: list[int] = []

    def predict() -> Iterator[list[dict[str, Any]]]:
        for number in range(3):
            (partial,) = tmp_path.iterdir()
            held.append(partial.stat().st_size)
            yield [{"label": "x" * 100_000}] * (number + 1)

    write_predictions(tmp_path / "predictions.jsonl", [{}] * 6, predict())
    assert held[0] < held[1] < held[2]


def test_a_prediction_too_few_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_predictions(tmp_path / "predictions.jsonl", FIELDS, [PREDICTIONS[:6]])
    assert list(tmp_path.iterdir()) == []
