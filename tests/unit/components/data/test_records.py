from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorry_components.data.reading import Reading
from lorry_registry.errors import InvalidDataError

Read = Callable[..., Reading]
Fail = Callable[..., InvalidDataError]
Write = Callable[..., Path]

ROWS = [{"text": "good", "label": "yes"}, {"text": "bad, “very”", "label": "no"}]


def test_missing_columns(fail: Fail, write_lines: Write) -> None:
    path = write_lines("a.jsonl", [{"Texts": "good", "stars": 1}, {"Texts": "bad", "stars": 2, "id": 7}])
    error = fail(path)
    assert [str(fault) for fault in error.faults] == [
        "a.jsonl: has no column 'text' (data.columns.text); it has Texts, id, stars; did you mean 'Texts'?",
        "a.jsonl: has no column 'label' (data.columns.label); it has Texts, id, stars",
    ]


def test_missing_columns_of_csv_and_parquet(fail: Fail, write_lines: Write, tmp_path: Path) -> None:
    message = str(fail(write_lines("a.csv", ["texts,stars", "good,yes"])))
    assert "has no column 'text' (data.columns.text); it has stars, texts; did you mean 'texts'?" in message
    pq.write_table(pa.table({"text": ["a", "b"], "lable": [1, 2], "id": [1, 2]}), tmp_path / "a.parquet")
    error = fail(tmp_path / "a.parquet")
    assert len(error.faults) == 1
    assert "has no column 'label' (data.columns.label); it has id, lable, text; did you mean 'lable'?" in str(
        error
    )


def test_a_column_that_some_rows_lack(fail: Fail, write_lines: Write) -> None:
    error = fail(write_lines("a.jsonl", [ROWS[0], {"text": "lonely"}, *[{"label": "x"}] * 400]))
    assert str(error.faults[0]) == "a.jsonl line 3: has no 'text'"
    assert "401 faults" in str(error)


def test_many_columns_are_not_all_told(fail: Fail, write_lines: Write) -> None:
    row = {f"column {number} {'x' * 200}": 1 for number in range(1000)}
    assert len(str(fail(write_lines("a.jsonl", [row])))) < 1500


def test_a_column_given_twice(fail: Fail, write_lines: Write) -> None:
    assert "has the column 'text' 2 times" in str(fail(write_lines("a.csv", ["text,text,label", "a,b,c"])))


def test_ragged_rows(fail: Fail, write_lines: Write) -> None:
    lines = ["text,label", "good,yes", "Hello, world,yes", "short", "bad,no"]
    error = fail(write_lines("a.csv", lines))
    assert [str(fault) for fault in error.faults] == [
        "a.csv line 3: has 3 cells where the header has 2",
        "a.csv line 4: has 1 cells where the header has 2",
    ]


@pytest.mark.parametrize("rows", [3, 100_000])
def test_a_quotation_mark_that_is_never_closed(fail: Fail, write_lines: Write, rows: int) -> None:
    lines = ["text,label", "good,yes", '"open,no', *["bad,no"] * rows]
    message = str(fail(write_lines("a.csv", lines)))
    assert "a.csv line 3: is not CSV" in message
    assert "is a quotation mark never closed?" in message


def test_csv_of_another_time(fail: Fail, write_lines: Write, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,label\rgood,yes\rbad,no\r")
    assert "a.csv line 1: is not CSV: a line ends in a carriage return alone" in str(fail(tmp_path / "a.csv"))
    path = write_lines("a.tsv", ["text\tlabel", "x" * 200_000 + "\tyes"])
    assert "a.tsv line 2: is not TSV: a cell has over 131,072 characters" in str(fail(path))


def test_texts_that_are_none(fail: Fail, write_lines: Write) -> None:
    values: list[object] = ["", " \t\u3000", None, 12, 1.5, True, ["a"], {"a": 1}, "half \ud83d"]
    error = fail(write_lines("a.jsonl", [{"text": value, "label": "x"} for value in values]))
    assert [fault.what.removeprefix("column 'text' ") for fault in error.faults] == [
        "is empty",
        "is empty",
        "is null, not a string",
        "is the number 12, not a string",
        "is the number 1.5, not a string",
        "is true or false, not a string",
        "is a list, not a string",
        "is an object, not a string",
        "holds half of a surrogate pair: 'half \\ud83d'",
    ]


def test_an_empty_second_text(fail: Fail, write_lines: Write) -> None:
    path = write_lines("a.csv", ["a,b,label", "x,,yes", ",,no", ",,"])
    error = fail(path, columns={"text": "a", "text_pair": "b"})
    assert [str(fault) for fault in error.faults] == [
        "a.csv line 2: column 'b' is empty",
        "a.csv line 3: column 'a' is empty",
        "a.csv line 3: column 'b' is empty",
    ]


def test_parquet_cells_that_are_not_texts(fail: Fail, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2], "label": ["x", "y"]}), tmp_path / "a.parquet")
    assert "a.parquet row 1: column 'text' is the number 1, not a string" in str(fail(tmp_path / "a.parquet"))
    pq.write_table(pa.table({"text": ["x" * 2_000_000], "label": ["x"]}), tmp_path / "b.parquet")
    assert "column 'text' is over 1 MiB long" in str(fail(tmp_path / "b.parquet"))


def test_labels_of_a_regression(fail: Fail, write_lines: Write) -> None:
    lines = [
        '{"text": "a", "label": NaN}',
        '{"text": "b", "label": Infinity}',
        '{"text": "c", "label": null}',
        '{"text": "d", "label": "nan"}',
        '{"text": "e", "label": "good"}',
        '{"text": "f", "label": ' + "9" * 400 + "}",
        '{"text": "g", "label": 1e39}',
        '{"text": "h", "label": "' + "x" * 100_000 + '"}',
        '{"text": "i", "label": 0.5}',
    ]
    error = fail(write_lines("a.jsonl", lines), "regression")
    assert [fault.where for fault in error.faults] == [f"a.jsonl line {number}" for number in range(1, 9)]
    assert "column 'label': nan is not finite" in str(error)
    assert "column 'label': inf is not finite" in str(error)
    assert "column 'label': None is not a number" in str(error)
    assert "1e+39 is too large" in str(error)


def test_labels_of_a_classification(fail: Fail, write_lines: Write) -> None:
    values = [None, "", float("nan"), 0.5, ["a"], "x" * 300, "half \ud83d"]
    error = fail(write_lines("a.jsonl", [{"text": "a", "label": value} for value in values]))
    assert len(error.faults) == len(values)
    assert "a class name may have 256" in str(error)


def test_only_the_first_faults_are_listed(fail: Fail, write_lines: Write) -> None:
    error = fail(write_lines("a.jsonl", [{"text": "", "label": "x"}] * 330))
    message = str(error)
    assert message.count("is empty") == 20
    assert ": 330 faults\n" in message
    assert "  ...: and 310 more" in message


def test_all_files_are_told_and_file_faults_first(fail: Fail, write_lines: Write, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_lines("train.jsonl", [{"text": "", "label": "x"}] * 30, folder)
    write_lines("validation.jsonl", ["no"], folder)
    write_lines("test.jsonl", [{"text": "unlabelled"}], folder)
    message = str(fail(folder))
    assert "32 faults\n  test.jsonl: has no column 'label'" in message


def test_what_is_printed_is_printable(fail: Fail, write_lines: Write) -> None:
    row = {"\x1b[31mred\x1b[0m": 1, "label": "x"}
    assert "\x1b" not in str(fail(write_lines("a.jsonl", [row])))


def test_a_key_given_twice_in_a_row_is_refused_with_its_line(fail: Fail, write_lines: Write) -> None:
    lines = [
        ROWS[0],
        '{"text": "a", "label": "x", "text": "b"}',
        '{"text": "c", "label": "x", "m": {"a": 1, "a": 2}}',
    ]
    assert [str(fault) for fault in fail(write_lines("a.jsonl", lines)).faults] == [
        "a.jsonl line 2: has the key 'text' 2 times; leave one of them",
        "a.jsonl line 3: has the key 'a' 2 times; leave one of them",
    ]


def test_nul_characters_are_refused_with_their_line(fail: Fail, write_lines: Write, tmp_path: Path) -> None:
    rows = [ROWS[0], {"text": "a\0b", "label": "x"}, {"text": "c", "label": "y\0"}]
    assert [str(fault) for fault in fail(write_lines("a.jsonl", rows)).faults] == [
        "a.jsonl line 2: column 'text' holds a NUL character: 'a\\x00b'",
        "a.jsonl line 3: column 'label': holds a NUL character: 'y\\x00'",
    ]
    assert "a.csv line 2: column 'text' holds a NUL" in str(
        fail(write_lines("a.csv", ["text,label", "a\0b,x", "c,y"]))
    )
    pq.write_table(pa.table({"text": ["a\0b", "c"], "label": ["x", "y"]}), tmp_path / "a.parquet")
    assert "a.parquet row 1: column 'text' holds a NUL" in str(fail(tmp_path / "a.parquet"))
