"""Rows that ask about a context: their answers are in it, and rows about one context stay together."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorry_components.data.examples import Example
from lorry_components.data.splits import split_examples
from lorry_components.steps.prepare_data.step import load_part, prepare_data
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.errors import InvalidDataError
from lorry_registry.tasks.input_specs import SeededSplit
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
WriteLines = Callable[..., Path]
KIND = "question-answering"
COLUMNS = {"text": "question", "text_pair": "context", "label": "answers"}


def make_row(number: int, questions: int = 1, **changes: Any) -> dict[str, Any]:
    context = f"Depot {number // questions} opens at nine and closes at five."
    answers = {"text": ["nine"], "answer_start": [context.index("nine")]}
    return {"question": f"When does {number} open?", "context": context, "answers": answers} | changes


def count_shared(parts: dict[str, list[Example]]) -> int:
    contexts = [{example.row["text_pair"] for example in examples} for examples in parts.values()]
    return sum(map(len, contexts)) - len(set.union(*contexts))


def test_a_context_without_its_answer_is_told_with_its_line(
    fail: Callable[..., InvalidDataError], write_lines: WriteLines
) -> None:
    rows = [make_row(number) for number in range(6)]
    rows[1]["answers"] = {"text": ["ten"], "answer_start": [14]}
    rows[2]["answers"] = {"text": ["nine"], "answer_start": [3]}
    rows[3]["answers"] = None
    rows[4]["answers"] = "five"
    rows[5]["context"] = " "
    error = fail(write_lines("rows.jsonl", rows), KIND, columns=COLUMNS)
    assert [str(fault) for fault in error.faults] == [
        "rows.jsonl line 2: the answer 'ten' does not occur in the context",
        "rows.jsonl line 3: the answer 'nine' does not stand at character 3 of the context, but at 17",
        "rows.jsonl line 4: column 'answers': holds null, not answers; "
        "write [] where the context has no answer",
        "rows.jsonl line 6: column 'context' is empty",
    ]


def test_a_source_without_the_context_is_refused(
    fail: Callable[..., InvalidDataError], write_lines: WriteLines
) -> None:
    rows = [{"question": "When?", "passage": "At nine.", "answers": "nine"}]
    error = fail(write_lines("rows.jsonl", rows), KIND, columns=COLUMNS)
    assert "has no column 'context' (data.columns.text_pair)" in str(error)


def test_every_format_gives_the_same_rows(read: Callable[..., Any], tmp_path: Path, write_lines: Any) -> None:
    rows = [make_row(number) for number in range(4)]
    rows[3]["answers"] = {"text": [], "answer_start": []}
    lines = write_lines("rows.jsonl", rows)
    table = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), table)
    sheet = tmp_path / "rows.csv"
    with sheet.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(rows[0])
        for row in rows[:3]:
            writer.writerow([row["question"], row["context"], '{"text": ["nine"], "answer_start": [17]}'])
        writer.writerow([rows[3]["question"], rows[3]["context"], "[]"])
    labels = []
    for path in (lines, table, sheet):
        (examples,) = read(path, KIND, columns=COLUMNS).parts.values()
        labels.append([example.label for example in examples])
    assert labels[0] == ['{"answer_start":[17],"text":["nine"]}'] * 3 + ['{"answer_start":[],"text":[]}']
    assert labels[0] == labels[1] == labels[2]


def test_questions_about_one_context_stay_together(
    make_spec: MakeSpec, write_lines: WriteLines, tmp_path: Path
) -> None:
    rows = [make_row(number, questions=5) for number in range(300)]
    split = {"validation": 0.2, "test": 0.2, "seed": 4}
    spec = make_spec(write_lines("rows.jsonl", rows), KIND, columns=COLUMNS, split=split)
    card = prepare_data(resolve_task(spec), tmp_path / "data")
    parts = {part: load_part(tmp_path / "data", part) for part in ("train", "validation", "test")}
    assert count_shared(parts) == 0
    assert card.warnings == ()
    assert {part: len(examples) % 5 for part, examples in parts.items()} == dict.fromkeys(parts, 0)
    assert 25 < len(parts["test"]) < 100
    assert card.splits["train"].labels == card.splits["test"].labels
    labels: Any = card.splits["train"].labels
    assert labels.max == 1
    # Rows that come later move none of those that were there.
    more = [make_row(number, questions=5) for number in range(1000)]
    spec = make_spec(write_lines("more.jsonl", more), KIND, columns=COLUMNS, split=split)
    prepare_data(resolve_task(spec), tmp_path / "more")
    texts = {example.row["text"] for example in load_part(tmp_path / "more", "test")}
    assert {example.row["text"] for example in parts["test"]} <= texts


@pytest.mark.parametrize("contexts", [1, 2])
def test_few_contexts_are_divided_by_question_and_that_is_told(
    make_spec: MakeSpec, write_lines: WriteLines, tmp_path: Path, contexts: int
) -> None:
    rows = [make_row(number, questions=400 // contexts) for number in range(400)]
    card = prepare_data(
        resolve_task(make_spec(write_lines("rows.jsonl", rows), KIND, columns=COLUMNS)), tmp_path / "data"
    )
    assert len(card.warnings) == 2
    assert card.warnings[0].startswith("validation has ")
    assert "with a context that train asks about too" in card.warnings[1]


def test_three_contexts_are_each_in_a_part(example: Callable[..., Example]) -> None:
    table = [example(f"question {number}", "", f"context {number % 3}") for number in range(30)]
    parts = split_examples(table, SeededSplit(), label_form="text", by_context=True)
    assert {part: len(examples) for part, examples in parts.items()} == {
        "train": 10,
        "validation": 10,
        "test": 10,
    }
    assert len({example.row["text_pair"] for example in parts["test"]}) == 1


def test_named_parts_that_share_a_context_are_warned_of(
    make_spec: MakeSpec, write_lines: WriteLines, tmp_path: Path
) -> None:
    folder = tmp_path / "source"
    for part, numbers in (("train", range(40)), ("validation", range(40, 80)), ("test", range(75, 115))):
        rows = [make_row(number) for number in numbers]
        if part == "test":
            rows[0] = make_row(2, question="When does it close?")
        write_lines(f"{part}.jsonl", rows, folder)
    card = prepare_data(resolve_task(make_spec(folder, KIND, columns=COLUMNS)), tmp_path / "data")
    assert any(
        warning.startswith("test has 1 row with a context that train asks about too")
        for warning in card.warnings
    )


def test_a_pair_that_is_no_context_is_divided_as_before(example: Callable[..., Example]) -> None:
    table = [example(f"premise {number}", "yes", "the same hypothesis") for number in range(200)]
    parts = split_examples(table, SeededSplit(), label_form="class")
    assert all(parts.values())


def test_squads_own_rows_are_read(real_data: Path, read: Callable[..., Any]) -> None:
    source = real_data / "squad_v1" / "validation.jsonl.gz"
    reading = read(source, KIND, columns=COLUMNS)
    (examples,) = reading.parts.values()
    assert len(examples) == 10_570
    parts = split_examples(examples, SeededSplit(), label_form="text", by_context=True)
    assert count_shared(parts) == 0
    assert 0.07 < len(parts["test"]) / len(examples) < 0.13
