"""What ``lorry init`` guesses of tables: kind, columns, split, and what it is unsure of."""

import csv
import dataclasses
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lorry_components.tasks.definition import inspect_task
from lorry_pipelines.starting.column_profile import profile_table
from lorry_pipelines.starting.guesses import ColumnHints, TaskGuess, guess_task
from lorry_pipelines.starting.task_file import name_task, render_task
from lorry_registry.errors import InvalidDataError, InvalidTaskError, LorryError, UsageError

WORDS = ("good", "dull", "film", "story", "plot", "actor", "scene", "music", "light", "slow")


def make_text(number: int, length: int = 8) -> str:
    return " ".join(WORDS[(number * step + step) % len(WORDS)] for step in range(1, length)) + f" {number}"


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return path


def guess(path: Path, **hints: str) -> TaskGuess:
    return guess_task(profile_table(path), ColumnHints(**hints))


def explain(found: TaskGuess, about: str) -> str:
    return next(f"{each.choice}: {each.why}" for each in found.guesses if each.about == about)


def list_unsure(found: TaskGuess) -> list[str]:
    return [each.about for each in found.guesses if not each.is_sure]


def test_a_classification(tmp_path: Path) -> None:
    rows = [
        {"id": n, "title": "x", "review": make_text(n), "sentiment": ("bad", "good")[n % 2]}
        for n in range(400)
    ]
    found = guess(write_rows(tmp_path / "a.jsonl", rows))
    assert (found.kind, found.text, found.text_pair, found.label) == (
        "text-classification",
        "review",
        None,
        "sentiment",
    )
    assert explain(found, "classes") == "bad 50%, good 50%: their shares of the rows"
    assert explain(found, "other columns").startswith("id, title")
    assert list_unsure(found) == []


def test_numbers_with_digits_after_the_point_are_a_regression_of_a_pair(tmp_path: Path) -> None:
    rows = [
        {"sentence1": make_text(n), "sentence2": make_text(n + 1), "score": n % 50 / 10} for n in range(300)
    ]
    found = guess(write_rows(tmp_path / "a.jsonl", rows))
    assert (found.kind, found.text, found.text_pair, found.label) == (
        "regression",
        "sentence1",
        "sentence2",
        "score",
    )


def test_stars_may_be_either_and_that_is_said(tmp_path: Path) -> None:
    rows = [{"text": make_text(n), "stars": n % 5 + 1} for n in range(300)]
    found = guess(write_rows(tmp_path / "a.jsonl", rows))
    assert found.kind == "text-classification"
    assert "kind" in list_unsure(found)
    assert "--kind regression" in explain(found, "kind")


def test_answers_that_stand_in_a_context_are_question_answering(tmp_path: Path) -> None:
    rows = [
        {
            "context": f"In the year {n} " + make_text(n, 40),
            "question": f"Which year is number {n} of them all?",
            "answers": {"text": [f"year {n}"], "answer_start": [7]},
        }
        for n in range(200)
    ]
    found = guess(write_rows(tmp_path / "a.jsonl", rows))
    assert (found.kind, found.text, found.text_pair, found.label) == (
        "question-answering",
        "question",
        "context",
        "answers",
    )


def test_texts_of_their_own_are_to_be_written(tmp_path: Path) -> None:
    rows = [{"question": make_text(n), "answer": f"{make_text(n + 7, 12)} so"} for n in range(200)]
    assert guess(write_rows(tmp_path / "a.jsonl", rows)).kind == "text-generation"


def test_another_column_that_may_be_the_label_is_named(tmp_path: Path) -> None:
    rows = [{"text": make_text(n), "label": n % 3, "label_fine": f"c{n % 9}"} for n in range(200)]
    found = guess(write_rows(tmp_path / "a.jsonl", rows))
    assert found.label == "label"
    assert "label_fine" in explain(found, "label")
    assert guess(tmp_path / "a.jsonl", label="label_fine").label == "label_fine"


def test_a_second_column_of_classes_is_named_where_no_name_decides(tmp_path: Path) -> None:
    rows = [
        {"review": make_text(n), "sentiment": ("bad", "good")[n % 2], "urgent": ("no", "yes")[n % 3 // 2]}
        for n in range(200)
    ]
    found = guess(write_rows(tmp_path / "a.jsonl", rows))
    assert found.label == "sentiment"
    assert "label" in list_unsure(found)
    assert "it may also be urgent: --label" in explain(found, "label")


@pytest.mark.parametrize("gap", ["NaN", "", None, "nan", "<NA>", float("nan")])
def test_what_stands_for_a_missing_label_is_no_class_and_is_left_out(tmp_path: Path, gap: Any) -> None:
    rows = [
        {"text": make_text(n), "label": gap if n % 20 == 0 else ("ham", "spam")[n % 2]} for n in range(200)
    ]
    found = guess(write_rows(tmp_path / "a.jsonl", rows))
    assert explain(found, "classes").startswith("spam 53%, ham 47%:")
    assert found.drops_gaps
    assert "rows with gaps" in list_unsure(found)
    assert "'label' is missing in 10;" in explain(found, "rows with gaps")
    text = render_task(found, name="task", base="./base", revision=None, source="a.jsonl")
    assert "\n  on_fault: drop\n" in text
    spec, faults = inspect_task(yaml.safe_load(text))
    assert spec is None or spec.data.on_fault == "drop", faults
    other = dataclasses.replace(found, kind="question-answering")
    assert "Soft tokens" in text
    # Only heads on whole texts were measured.
    assert "Soft tokens" not in render_task(
        other, name="task", base="./base", revision=None, source="a.jsonl"
    )


def test_numbers_with_gaps_are_numbers(tmp_path: Path) -> None:
    rows = [{"text": make_text(n), "price": "NaN" if n % 20 == 0 else f"{n}.5"} for n in range(200)]
    found = guess(write_rows(tmp_path / "a.jsonl", rows))
    assert (found.kind, found.label) == ("regression", "price")
    assert guess(tmp_path / "a.jsonl", label="price").kind == "regression"


def test_decimal_commas_are_numbers_and_are_said(tmp_path: Path) -> None:
    lines = ["text;price", *[f"{make_text(n)};{n},5" for n in range(200)]]
    (tmp_path / "a.csv").write_text("\n".join(lines), "utf-8")
    found = guess(tmp_path / "a.csv")
    assert (found.kind, found.label, found.decimal) == ("regression", "price", ",")
    text = render_task(found, name="task", base="./base", revision=None, source="a.csv")
    assert "Soft tokens (prompt-tuning, p-tuning, p-tuning-v2) are not expected to learn as much" in text
    assert yaml.safe_load(text)["data"]["format"] == {"decimal": ","}


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["good"] * 100, "'mark' has the same value in each of its 100 rows, 'good'"),
        ([f"EUR{n}" for n in range(100)], "holds neither classes nor numbers nor texts to be written"),
    ],
)
def test_a_label_that_teaches_nothing_is_told(tmp_path: Path, labels: list[str], told: str) -> None:
    rows = [{"text": make_text(n), "mark": mark} for n, mark in enumerate(labels)]
    with pytest.raises(UsageError, match=told):
        guess(write_rows(tmp_path / "a.jsonl", rows), label="mark")


def test_few_rows_get_larger_shares_and_a_warning(tmp_path: Path) -> None:
    rows = [{"text": make_text(n), "label": n % 2} for n in range(60)]
    found = guess(write_rows(tmp_path / "a.jsonl", rows))
    assert found.split == {"validation": 0.15, "test": 0.25}
    assert "split" in list_unsure(found)
    assert "hardly tell" in explain(found, "split")


def test_a_folder_with_its_parts_keeps_them(tmp_path: Path) -> None:
    for part in ("train", "validation", "test"):
        write_rows(tmp_path / f"{part}.jsonl", [{"text": make_text(n), "label": n % 2} for n in range(60)])
    assert guess(tmp_path).split is None


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "jsonl.gz", "parquet"])
def test_every_format(tmp_path: Path, ending: str) -> None:
    rows = [{"text": make_text(n), "label": ("ham", "spam")[n % 2]} for n in range(100)]
    path = tmp_path / f"a.{ending}"
    if ending == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with gzip.open(path, "wt") if ending.endswith(".gz") else path.open("w") as stream:
            if ending.startswith("jsonl"):
                stream.writelines(f"{json.dumps(row)}\n" for row in rows)
            else:
                writer = csv.DictWriter(
                    stream, ["text", "label"], dialect="excel-tab" if "tsv" in ending else "excel"
                )
                writer.writeheader()
                writer.writerows(rows)
    found = guess(path)
    assert (found.kind, found.text, found.label) == ("text-classification", "text", "label")


@pytest.mark.parametrize(
    ("label", "is_fitted"),
    [(lambda n: n % 2, True), (lambda n: n + 0.25, False)],
    ids=["classes", "numbers"],
)
def test_a_head_is_fitted_first_where_that_is_better(
    tmp_path: Path, label: Callable[[int], float], is_fitted: bool
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": make_text(n), "label": label(n)} for n in range(400)])
    text = render_task(guess(path), name="task", base="./base", revision=None, source="a.jsonl")
    assert ("init: probe" in text) == is_fitted


def test_texts_without_spaces_have_a_length(tmp_path: Path) -> None:
    rows = [{"text": "這是一個很好的電影" * 12 + str(n), "label": n % 2} for n in range(80)]
    assert guess(write_rows(tmp_path / "a.jsonl", rows)).max_length >= 32


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", InvalidDataError),
        ("text,label\n", InvalidDataError),
        ("only\nsome text\n", UsageError),
        ("a,b\n1,2\n3,4\n", UsageError),
        ("This was a really very good film,positive\nAnd a bad one,negative\n", UsageError),
        ("text,label\nsome text,a,b\n", InvalidDataError),
    ],
)
def test_a_table_without_a_task_is_refused(tmp_path: Path, content: str, error: type[LorryError]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content, "utf-8")
    with pytest.raises(error) as caught:
        guess(path)
    assert caught.value.todo


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": make_text(n), "label": n % 2} for n in range(20)])
    with pytest.raises(InvalidTaskError, match="there are: text, label"):
        guess(path, label="lable")


@settings(max_examples=80)
@example(names=["0", "\x85"], label="")
@given(
    names=st.lists(
        st.text(min_size=1, max_size=20).filter(lambda name: len(name.split()) < 4),
        min_size=2,
        max_size=5,
        unique=True,
    ),
    label=st.text(max_size=30),
)
def test_whatever_names_and_classes_are_the_file_is_a_valid_task(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], label: str
) -> None:
    rows = [
        {name: make_text(n) if place else f"{label}{n % 2}" for place, name in enumerate(names)}
        for n in range(20)
    ]
    path = write_rows(tmp_path_factory.mktemp("rows") / "a.jsonl", rows)
    try:
        found = guess(path, label=names[0])
    except UsageError:
        return
    text = render_task(found, name="task", base="./base", revision=None, source="a.jsonl")
    spec, faults = inspect_task(yaml.safe_load(text))
    assert not faults
    assert spec is not None
    assert (spec.data.columns.text, spec.data.columns.label) == (found.text, names[0])


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("Reviews 2024 (final)", "reviews-2024-final"),
        ("Überprüfung", "berpr-fung"),
        ("___", "task"),
        ("x" * 90, "x" * 63),
    ],
)
def test_a_task_is_named_after_its_file(stem: str, expected: str) -> None:
    assert name_task(stem) == expected


@pytest.mark.parametrize(
    ("name", "kind", "columns"),
    [
        ("sms_spam/all.jsonl.gz", "text-classification", ("text", None, "label")),
        ("stsb/validation.jsonl.gz", "regression", ("sentence1", "sentence2", "score")),
        ("mrpc/validation.jsonl", "text-classification", ("sentence1", "sentence2", "label")),
        ("snli/test.jsonl.gz", "text-classification", ("premise", "hypothesis", "label")),
        ("qnli/validation.jsonl.gz", "text-classification", ("question", "sentence", "label")),
        ("squad_v1/validation.jsonl.gz", "question-answering", ("question", "context", "answers")),
        ("gsm8k/test.jsonl.gz", "text-generation", ("question", None, "answer")),
        ("cola/validation.jsonl", "text-classification", ("sentence", None, "label")),
    ],
)
def test_real_data_sets(name: str, kind: str, columns: tuple[str, str | None, str]) -> None:
    folder = os.environ.get("LORRY_TEST_DATA")
    if not folder:
        pytest.skip("LORRY_TEST_DATA names no folder with real data")
    found = guess(Path(folder) / name)
    assert (found.kind, (found.text, found.text_pair, found.label)) == (kind, columns)
