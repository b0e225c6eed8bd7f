"""Rows without a text or a label: refused, or left out and counted where the task says so."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lorry_components.data.reading import Reading
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.errors import InvalidDataError
from lorry_registry.tasks.task_spec import TaskSpec

Read = Callable[..., Reading]
Fail = Callable[..., InvalidDataError]
Write = Callable[..., Path]

GOOD = [{"text": f"text {number}", "label": ("ham", "spam")[number % 2]} for number in range(200)]
GAPS: list[dict[str, object]] = [
    {"text": "", "label": "ham"},
    {"text": "NaN", "label": "ham"},
    {"text": None, "label": None},
    {"label": "ham"},
    {"text": "one", "label": " "},
    {"text": "two", "label": "nan"},
    {"text": "three"},
    {"text": "four", "label": float("nan")},
]
COUNTED = {"rows without a text": 4, "rows without a label": 4}


def test_they_are_refused_unless_the_task_says_so(fail: Fail, write_lines: Write) -> None:
    # A class may be called so, whatever it looks like.
    assert len(fail(write_lines("a.jsonl", [*GOOD, *GAPS])).faults) == 7


def test_they_are_left_out_and_counted(read: Read, write_lines: Write) -> None:
    plain = read(write_lines("a.jsonl", GOOD))
    reading = read(write_lines("b.jsonl", [*GAPS, *GOOD]), on_fault="drop")
    assert reading.parts == plain.parts
    assert reading.dropped == COUNTED


def test_in_parquet_and_csv_too(read: Read, write_lines: Write, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([*GOOD, *GAPS[:3]]), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", on_fault="drop").dropped == {"rows without a text": 3}
    path = write_lines("a.csv", ["text,label", "a,x", ",x", "b,", "c,y"])
    assert read(path, on_fault="drop").dropped == {"rows without a text": 1, "rows without a label": 1}


def test_other_faults_are_still_refused(fail: Fail, write_lines: Write) -> None:
    rows = [*GOOD, *GAPS, {"text": 3, "label": "ham"}, {"text": "a", "label": 0.5}]
    assert len(fail(write_lines("a.jsonl", rows), on_fault="drop").faults) == 2
    error = fail(write_lines("b.jsonl", [{"text": "a", "labels": "x"}]), on_fault="drop")
    assert "has no column 'label'" in str(error)


def test_the_card_has_the_counts(
    write_lines: Write, make_spec: Callable[..., TaskSpec], tmp_path: Path
) -> None:
    path = write_lines("a.jsonl", [*GOOD, *GAPS])
    spec = make_spec(path)
    data = spec.data.model_copy(update={"on_fault": "drop"})
    card = prepare_data(resolve_task(spec.model_copy(update={"data": data})), tmp_path / "prepared")
    assert card.dropped == COUNTED
    assert json.loads((tmp_path / "prepared" / "data_card.json").read_bytes())["dropped"] == COUNTED


def test_faults_are_refused_unless_a_task_says_otherwise(make_spec: Callable[..., TaskSpec]) -> None:
    assert make_spec("rows.csv").data.model_dump()["on_fault"] == "refuse"
    assert make_spec("rows.csv", on_fault="drop").data.model_dump()["on_fault"] == "drop"
