"""New inputs beside the rows of a task: what is compared, what is said, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorry_components.drift import compare_inputs, read_inputs
from lorry_components.drift.comparison import Sample
from lorry_components.task_types import TASK_TYPES, InputForm
from lorry_registry.errors import InvalidDataError
from lorry_registry.tasks.input_specs import Columns

CLASSIFICATION = TASK_TYPES["text-classification"](InputForm(max_length=16))
REGRESSION = TASK_TYPES["regression"](InputForm(max_length=16))
WORDS = ("film", "plot", "music", "actor", "light", "story")


def draw(count: int, seed: int, *, extra: str = "", share: float = 0.5) -> Sample:
    generator = np.random.default_rng(seed)
    rows = [{"text": " ".join([*generator.choice(WORDS, size=5), extra]).strip()} for _ in range(count)]
    return Sample(rows, ["good" if generator.random() < share else "bad" for _ in range(count)])


def compare(before: Sample, now: Sample, **changes: Any) -> Any:
    given: dict[str, Any] = {"label_form": "class", "confidence": 0.99, "embed": None}
    return compare_inputs(before, now, **(given | changes))


def test_rows_of_one_kind_have_not_drifted() -> None:
    report = compare(draw(200, 0), draw(200, 1))
    assert not report.has_drifted
    assert [test.name for test in report.tests] == ["length", "vocabulary", "labels"]
    assert report.level == pytest.approx(0.01 / 3)
    assert "embedding" in report.left_out


@pytest.mark.parametrize(
    ("now", "shifted"),
    [
        (draw(200, 1, extra="refund refund refund"), {"length", "vocabulary"}),
        (draw(200, 1, share=0.9), {"labels"}),
    ],
)
def test_what_shifted_is_named(now: Sample, shifted: set[str]) -> None:
    report = compare(draw(200, 0), now)
    assert report.has_drifted
    assert {test.name for test in report.tests if test.p_value <= report.level} == shifted


def test_words_and_labels_are_told_with_both_shares() -> None:
    report = compare(draw(200, 0), draw(200, 1, extra="refund", share=0.9))
    told = {test.name: (test.before, test.now) for test in report.tests}
    assert told["vocabulary"][0].startswith("refund 0%")
    assert told["vocabulary"][1].startswith("refund 100%")
    assert told["length"] == ("median 5 words", "median 6 words")
    assert "good" in told["labels"][0]


def test_the_embedding_is_of_both_in_one_go() -> None:
    asked: list[int] = []

    def embed(rows: Any) -> Any:
        asked.append(len(rows))
        return np.asarray([[float("odd" in row["text"]), 0.0] for row in rows])

    report = compare(draw(80, 0), draw(60, 1, extra="odd"), embed=embed)
    assert asked == [140]
    assert {test.name: test.p_value for test in report.tests}["embedding"] < 0.001


def test_numbers_are_compared_by_their_order() -> None:
    before = Sample(draw(100, 0).rows, [float(n) for n in range(100)])
    now = Sample(draw(100, 1).rows, [float(n) + 80.0 for n in range(100)])
    report = compare(before, now, label_form="number")
    labels = next(test for test in report.tests if test.name == "labels")
    assert labels.p_value < 0.001
    assert (labels.before, labels.now) == ("median 49.5", "median 130")


def test_without_all_labels_they_are_left_out() -> None:
    report = compare(draw(100, 0), Sample(draw(100, 1).rows))
    assert report.left_out["labels"] == "not every new input has one"
    assert "texts" in compare(draw(50, 0), draw(50, 1), label_form="text").left_out["labels"]


def test_many_rows_are_sampled_and_the_same_each_time() -> None:
    first, again = (compare(draw(2000, 0), draw(900, 1), most_rows=100) for _ in range(2))
    assert (first.rows_before, first.rows_now) == (100, 100)
    assert first == again


# New inputs


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return path


def test_inputs_with_and_without_labels(tmp_path: Path) -> None:
    columns = Columns(text="body", label="stars")
    labelled = write(tmp_path / "a.jsonl", [{"body": f"text {n}", "stars": n, "id": n} for n in range(20)])
    found = read_inputs(labelled, columns, REGRESSION)
    assert found.rows[3] == {"text": "text 3"}
    assert found.labels[3] == 3.0
    bare = write(tmp_path / "b.jsonl", [{"body": f"text {n}"} for n in range(20)])
    assert read_inputs(bare, columns, REGRESSION).labels == ()
    some = write(tmp_path / "c.jsonl", [{"body": f"t {n}", "stars": None if n else 1.0} for n in range(20)])
    assert read_inputs(some, columns, REGRESSION).labels == ()
    assert found.digest != read_inputs(bare, columns, REGRESSION).digest


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"other": "x"}] * 30, "no text in 'text'"),
        ([{"text": None}] * 30, "no text in 'text'"),
        ([{"text": "x"}] * 19, "fewer than 20 tell nothing"),
    ],
)
def test_inputs_that_tell_nothing_are_refused(tmp_path: Path, rows: list[Any], expected: str) -> None:
    with pytest.raises(InvalidDataError, match=expected):
        read_inputs(write(tmp_path / "a.jsonl", rows), Columns(), CLASSIFICATION)
