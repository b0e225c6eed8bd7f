"""Tables as people have them; and what could be read before is read as before."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorry_components.data.faults import FaultLog
from lorry_components.data.reading import Reading, digest_source
from lorry_components.data.records import read_records
from lorry_components.data.text_tables import find_dialect
from lorry_registry.errors import InvalidDataError
from lorry_registry.tasks.input_specs import DataSpec, TableFormat
from lorry_registry.tasks.task_spec import TaskSpec

Read = Callable[..., Reading]
Fail = Callable[..., InvalidDataError]
Write = Callable[..., Path]

ROWS = [("good, really", "yes"), ('bad; "very"', "no"), ("two\nlines | and\ttabs", "no"), ("ü\u2028x", "yes")]


def write_table(delimiter: str) -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerows([("text", "label"), *ROWS])
    return stream.getvalue()


def found(reading: Reading) -> list[tuple[str, str | float]]:
    return [(example.row["text"], example.label) for example in reading.parts["table"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_separator_and_encoding_are_seen(
    read: Read, tmp_path: Path, encoding: str, delimiter: str, name: str
) -> None:
    content = write_table(delimiter).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert found(read(tmp_path / name)) == ROWS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_json_lines_in_utf_16(read: Read, tmp_path: Path, encoding: str) -> None:
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in ROWS]
    (tmp_path / "a.jsonl").write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    assert found(read(tmp_path / "a.jsonl")) == ROWS


def test_utf_16_that_is_cut_is_one_fault(fail: Fail, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(write_table(",").encode("utf-16") + b"x")
    (fault,) = fail(tmp_path / "a.csv").faults
    assert fault.what.startswith("cannot be read in the encoding utf-16")


def test_a_task_says_what_cannot_be_seen(read: Read, fail: Fail, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text|label\ncafé|1.234,5\nthé|-0,25\n".encode("latin-1"))
    fail(path, "regression")
    form = {"encoding": "latin-1", "delimiter": "|", "decimal": ","}
    assert found(read(path, "regression", format=form)) == [("café", 1234.5), ("thé", -0.25)]


def test_decimal_commas_are_one_fault(fail: Fail, write_lines: Write) -> None:
    path = write_lines("a.csv", ["text;label", "a;1", *[f"text {number};{number},5" for number in range(40)]])
    (fault,) = fail(path, "regression").faults
    assert fault.what == "has decimal commas in the column 'label', in 40 rows from a.csv line 3 on: '0,5'"
    assert "data.format: {decimal: ','}" in fault.remedy


def test_a_source_that_is_read_in_another_way_has_another_digest(write_lines: Write) -> None:
    path = str(write_lines("a.csv", ["text,label", "a,b"]))
    plain = digest_source(DataSpec(source=path))
    assert digest_source(DataSpec(source=path, format=TableFormat(encoding="latin-1"))) != plain


@pytest.mark.parametrize("form", [{"encoding": "klingon"}, {"encoding": "base64"}, {"delimiter": "x"}])
def test_a_format_that_cannot_be_is_refused(form: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"encoding|delimiter"):
        TableFormat.model_validate(form)


def test_a_recipe_is_the_same_without_and_with_a_format(make_spec: Callable[..., TaskSpec]) -> None:
    spec = make_spec("rows.csv")
    said = spec.model_copy(update={"data": spec.data.model_copy(update={"format": TableFormat(decimal=",")})})
    assert said.recipe_digest == spec.recipe_digest


# Whatever is a table by the separator of its ending is read by that one.

CELLS = st.text(st.sampled_from('ab ;|\t,"\n'), max_size=5)


@given(
    rows=st.integers(2, 4).flatmap(
        lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1)
    ),
    wanted=st.sets(CELLS.map(str.strip), max_size=2),
)
def test_a_table_of_commas_stays_one(
    rows: list[list[str]], wanted: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "commas.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)
    assert (
        not any(any(map(str.strip, row)) for row in rows)
        or find_dialect(path, path.name, wanted).delimiter == ","
    )


@given(rows=st.lists(st.lists(CELLS, min_size=1, max_size=1), min_size=1))
def test_a_column_that_is_wanted_is_found_with_commas_first(
    rows: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "one.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([["text;a"], *rows])
    records = read_records(path, path.name, (), FaultLog("source"), expected=["text;a"])
    assert {*()}.union(*(values for _, values in records)) <= {"text;a"}
