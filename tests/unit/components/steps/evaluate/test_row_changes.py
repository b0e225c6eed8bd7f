"""Which single rows a candidate answers worse than the champion."""

from lorry_components.data.rows import IMAGE
from lorry_components.steps.evaluate.row_changes import compare_rows
from lorry_components.task_types import TASK_TYPES
from lorry_components.task_types.input_form import InputForm


def answer(*labels: str) -> list[dict[str, object]]:
    return [{"label": label, "score": 0.9, "scores": {label: 0.9}} for label in labels]


def test_rows_of_a_classification() -> None:
    task_type = TASK_TYPES["text-classification"](InputForm(max_length=32))
    rows = [{"text": f"row {number}"} for number in range(4)]
    found = compare_rows(
        task_type,
        rows,
        ["spam", "ham", "ham", "spam"],
        before=answer("spam", "spam", "ham", "ham"),
        now=answer("ham", "ham", "ham", "ham"),
    )
    assert found is not None
    assert (found.better, found.worse) == (1, 1)
    (row,) = found.rows
    assert (row.texts, row.truth, row.before, row.now) == (
        {"text": "row 0"},
        "spam",
        "spam (90%)",
        "ham (90%)",
    )


def test_of_a_regression_the_rows_with_the_largest_loss_come_first() -> None:
    task_type = TASK_TYPES["regression"](InputForm(max_length=32))
    rows = [{"text": f"row {number}"} for number in range(8)]
    before = [{"value": 0.0}] * 8
    now = [{"value": float(number)} for number in range(8)]
    found = compare_rows(task_type, rows, [0.0] * 8, before=before, now=now)
    assert found is not None
    assert (found.better, found.worse) == (0, 7)
    assert [row.texts["text"] for row in found.rows] == [f"row {number}" for number in (7, 6, 5, 4, 3)]
    assert found.rows[0].now == "+7.00"


def test_long_texts_are_cut_and_images_left_out() -> None:
    task_type = TASK_TYPES["text-classification"](InputForm(max_length=32))
    row = {"text": "word \n" * 10_000, IMAGE: "AAAA" * 10_000}
    found = compare_rows(task_type, [row], ["spam"], before=answer("spam"), now=answer("ham"))
    assert found is not None
    (shown,) = found.rows
    assert set(shown.texts) == {"text"}
    assert len(shown.texts["text"]) == 300
    assert "\n" not in shown.texts["text"]


def test_a_task_type_that_scores_no_single_rows_is_not_compared() -> None:
    task_type = TASK_TYPES["image-generation"](InputForm(max_length=32))
    assert compare_rows(task_type, [{}], ["a"], before=[{}], now=[{}]) is None
