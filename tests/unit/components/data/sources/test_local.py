import gzip
import json
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorry_components.data.reading import Reading
from lorry_registry.errors import InvalidDataError

Read = Callable[..., Reading]
Fail = Callable[..., InvalidDataError]
Write = Callable[..., Path]

ROWS = [{"text": "good", "label": "yes"}, {"text": "bad, “very”", "label": "no"}]


def found(reading: Reading) -> list[tuple[str, str | float]]:
    return [(example.row["text"], example.label) for example in reading.parts["table"]]


EXPECTED = [("good", "yes"), ("bad, “very”", "no")]


# What can be read


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "A.JSONL"])
def test_json_lines(read: Read, write_lines: Write, name: str) -> None:
    assert found(read(write_lines(name, ["", ROWS[0], "   ", ROWS[1]]))) == EXPECTED


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_csv(read: Read, write_lines: Write, name: str) -> None:
    path = write_lines(name, ["id,text,label", "1,good,yes", "", '2,"bad, “very”",no'])
    assert found(read(path)) == EXPECTED


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_tsv_has_no_quotation_marks(read: Read, write_lines: Write, name: str) -> None:
    path = write_lines(name, ["text\tlabel", '"good\tyes', "bad, “very”\tno"])
    assert found(read(path)) == [('"good', "yes"), ("bad, “very”", "no")]


def test_csv_cell_over_several_lines(read: Read, write_lines: Write, fail: Fail) -> None:
    path = write_lines("a.csv", ["text,label", '"two', 'lines",yes', "good,no"])
    assert found(read(path)) == [("two\nlines", "yes"), ("good", "no")]
    broken = write_lines("b.csv", ["text,label", '"two', 'lines",yes', "good"])
    assert "b.csv line 4: has 1 cells where the header has 2" in str(fail(broken))


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_line_ends_and_a_byte_order_mark(read: Read, tmp_path: Path, ending: str) -> None:
    for name, lines in {
        "a.csv": ["text,label", "good,yes", "bad,no"],
        "a.tsv": ["text\tlabel", "good\tyes", "bad\tno"],
        "a.jsonl": [json.dumps({"text": "good", "label": "yes"}), json.dumps({"text": "bad", "label": "no"})],
    }.items():
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + ending.join(lines).encode())
        assert found(read(tmp_path / name)) == [("good", "yes"), ("bad", "no")]


@pytest.mark.parametrize(
    "column_type", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_parquet(read: Read, tmp_path: Path, column_type: Any) -> None:
    table = pa.table(
        {
            "text": pa.array([row["text"] for row in ROWS]).cast(column_type),
            "label": ["yes", "no"],
            "n": [1, 2],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert found(read(tmp_path / "a.parquet")) == EXPECTED


def test_a_pair_and_numbers(read: Read, write_lines: Write) -> None:
    path = write_lines("a.jsonl", [{"a": "x", "b": "y", "score": 1}, {"a": "x", "b": "z", "score": "2.5"}])
    reading = read(path, "regression", columns={"text": "a", "text_pair": "b", "label": "score"})
    assert [(example.row, example.label) for example in reading.parts["table"]] == [
        ({"text": "x", "text_pair": "y"}, 1.0),
        ({"text": "x", "text_pair": "z"}, 2.5),
    ]


def test_a_link_inside_the_folder_is_followed(read: Read, write_lines: Write, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_lines("rows", ROWS, folder)
    (folder / "a.jsonl").symlink_to("rows")
    assert found(read(folder)) == EXPECTED


def test_other_and_hidden_files_are_passed_over(read: Read, write_lines: Write, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name in ("SOURCE.md", "._a.jsonl", "b.jsonl.zip"):
        write_lines(name, ["not data"], folder)
    write_lines("a.jsonl", ROWS, folder)
    assert found(read(folder)) == EXPECTED


# What cannot


def test_no_such_file(fail: Fail, write_lines: Write, tmp_path: Path) -> None:
    write_lines("reviews.jsonl", ROWS)
    message = str(fail(tmp_path / "review.jsonl"))
    assert "there is no such file or folder; did you mean 'reviews.jsonl'?" in message
    assert "there is no such file or folder" in str(fail(tmp_path / "deep" / "down.jsonl"))
    assert "cannot be looked at" in str(fail(tmp_path / ("long" * 500)))


def test_an_unknown_ending(fail: Fail, write_lines: Write) -> None:
    message = str(fail(write_lines("a.txt", ROWS)))
    assert "no known ending" in message
    assert ".parquet" in message


def test_neither_file_nor_folder(fail: Fail, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    assert "neither a file nor a folder" in str(fail(tmp_path / "a.jsonl"))
    assert "a.jsonl: is not a file" in str(fail(tmp_path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz"])
def test_an_empty_file(fail: Fail, tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert f"{name}: is empty (0 bytes)" in str(fail(tmp_path / name))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.jsonl.gz"])
def test_only_blank_lines(fail: Fail, write_lines: Write, name: str) -> None:
    assert f"{name}: holds only blank lines" in str(fail(write_lines(name, ["", "  ", ""])))


def test_a_table_without_rows(fail: Fail, write_lines: Write, tmp_path: Path) -> None:
    assert "has a header but no rows" in str(fail(write_lines("a.csv", ["text,label"])))
    pq.write_table(pa.table({"text": pa.array([], pa.string()), "label": []}), tmp_path / "a.parquet")
    assert "a.parquet: holds no rows" in str(fail(tmp_path / "a.parquet"))


def test_lines_that_are_not_objects(fail: Fail, write_lines: Write) -> None:
    lines = [
        ROWS[0],
        '{"text": "good" "label": 1}',
        "[1, 2]",
        "12",
        "null",
        '"text"',
        "[" * 100_000,
        '{"text": "a", "label": ' + "9" * 5000 + "}",
    ]
    error = fail(write_lines("a.jsonl", lines))
    message = str(error)
    assert len(error.faults) == 7
    assert "a.jsonl line 2: is not a JSON object: Expecting ',' delimiter at character 17" in message
    assert "line 3: is a list, not a JSON object; write one object a line" in message
    assert "line 4: is the number 12, not" in message
    assert "line 5: is null, not" in message
    assert "line 6: is a string, not" in message
    assert "line 7: is not a JSON object that can be read: it is nested too deeply" in message
    assert "line 8: is not a JSON object that can be read: a number is too long" in message


@pytest.mark.parametrize("document", [{"text": "a"}, [{"text": "a", "label": "x"}]])
def test_one_json_document_over_many_lines(fail: Fail, write_lines: Write, document: object) -> None:
    error = fail(write_lines("a.json", [json.dumps(document, indent=1)]))
    assert [str(fault) for fault in error.faults] == [
        "a.json: is one JSON document over many lines; write one object a line"
    ]


def test_ten_megabytes_in_one_line(fail: Fail, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = json.dumps(ROWS[0]) + "\n"
    path.write_text(good + json.dumps({"text": "x" * 10_000_000, "label": "yes"}) + "\n" + "{}\n" + good)
    tracemalloc.start()
    try:
        error = fail(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6_000_000
    message = str(error)
    assert len(message) < 600
    assert "a.jsonl line 2: is 9.5 MiB long; a line may have 1 MiB" in message
    assert "a.jsonl line 3: has no 'text'" in message


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl.gz"])
def test_a_long_line_in_other_formats(fail: Fail, write_lines: Write, name: str) -> None:
    lines: list[object] = ["text,label" if "csv" in name else "text\tlabel", "x" * 10_000_000]
    if "json" in name:
        lines = [ROWS[0], "x" * 10_000_000]
    assert "line 2: is 9.5 MiB long" in str(fail(write_lines(name, lines)))


def test_a_line_of_just_one_mebibyte_is_read(read: Read, fail: Fail, write_lines: Write) -> None:
    frame = len(json.dumps({"text": "", "label": "yes"}))
    line = {"text": "x" * ((1 << 20) - frame), "label": "yes"}
    assert len(read(write_lines("a.jsonl", [line])).parts["table"]) == 1
    line["text"] += "x"
    assert "line 1: is 1.0 MiB long" in str(fail(write_lines("b.jsonl", [line])))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_invalid_utf8_names_line_and_offset(fail: Fail, tmp_path: Path, mark: bytes) -> None:
    first = mark + json.dumps(ROWS[0]).encode() + b"\n"
    content = first + b'{"text": "caf\xe9", "label": "yes"}\n'
    (tmp_path / "a.jsonl").write_bytes(content)
    message = str(fail(tmp_path / "a.jsonl"))
    assert (
        f"a.jsonl: is not UTF-8 in line 2, byte 0xe9 at offset {content.index(0xE9)} of the file" in message
    )


def test_invalid_utf8_on_the_first_line_behind_a_mark(fail: Fail, tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"text": "caf\xe9", "label": "yes"}\n'
    (tmp_path / "a.jsonl").write_bytes(content)
    assert f"offset {content.index(0xE9)} " in str(fail(tmp_path / "a.jsonl"))


def test_a_file_in_another_encoding_is_one_fault_however_long_it_is(fail: Fail, tmp_path: Path) -> None:
    # The header, too, and cells over several lines: what follows from that is no fault of its own.
    for start in (b"text,label\n", b"text,caf\xe9,label\n", b'text,label\n"good\n'):
        (tmp_path / "a.csv").write_bytes(start + b"caf\xe9,yes\n" * 300)
        (fault,) = fail(tmp_path / "a.csv").faults
        assert fault.place == "a.csv"
        assert re.match(r"is not UTF-8 in 30[01] lines, the first line [123], byte 0xe9 at", fault.what)
        assert "iconv -f WINDOWS-1252 -t UTF-8" in fault.remedy
        assert "or give data.format: {encoding: WINDOWS-1252}" in fault.remedy
    (tmp_path / "a.csv").write_bytes(b"text,label\ngood,yes\ncaf\xe9,no\n")
    assert "a.csv: is not UTF-8 in line 3" in str(fail(tmp_path / "a.csv"))


def test_parquet_that_is_not(fail: Fail, write_lines: Write, tmp_path: Path) -> None:
    assert "a.parquet: is not Parquet or is damaged" in str(fail(write_lines("a.parquet", ROWS)))
    path = tmp_path / "b.parquet"
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(500)], "label": ["x"] * 500}), path)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-200])
    assert "b.parquet: is not Parquet or is damaged" in str(fail(path))
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    assert "b.parquet: is not Parquet or is damaged" in str(fail(path))


def test_parquet_with_damaged_text(fail: Fail, tmp_path: Path) -> None:
    text = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")]
    )
    pq.write_table(pa.table({"text": text, "label": ["x", "y"]}), tmp_path / "a.parquet")
    assert "a.parquet: holds text that is not UTF-8 in rows 1 to 2" in str(fail(tmp_path / "a.parquet"))


def test_gzip_that_is_not_or_is_cut(fail: Fail, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_text(json.dumps(ROWS[0]))
    assert "cannot be unpacked" in str(fail(tmp_path / "a.jsonl.gz"))
    packed = gzip.compress(
        "".join(json.dumps({"text": f"{n}", "label": "x"}) + "\n" for n in range(9999)).encode()
    )
    (tmp_path / "b.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    assert "cannot be unpacked" in str(fail(tmp_path / "b.jsonl.gz"))
    spoiled = bytearray(packed)
    spoiled[200:400] = bytes(200)
    (tmp_path / "c.jsonl.gz").write_bytes(spoiled)
    assert "cannot be unpacked" in str(fail(tmp_path / "c.jsonl.gz"))


def test_an_unpacked_file_has_a_bound(
    fail: Fail, write_lines: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorry_components.data.records.MAX_FILE_BYTES", 3 << 20)
    assert "is over 1 GiB once unpacked" in str(fail(write_lines("a.jsonl.gz", ["x" * (1 << 23)])))
    many = [{"text": "x" * 1000, "label": "y"}] * 4000
    assert "is over 1 GiB once unpacked" in str(fail(write_lines("b.jsonl.gz", many)))


def test_a_row_over_many_lines_has_a_bound(
    read: Read, fail: Fail, write_lines: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorry_components.data.records.MAX_ROW_BYTES", 1 << 20)
    lines = ["text,label", *['"a', 'b",x'] * 300_000]
    assert len(read(write_lines("a.csv.gz", lines)).parts["table"]) == 300_000
    message = str(fail(write_lines("b.csv.gz", ["text,label", '"a', *['b","a'] * 300_000, 'b"'])))
    assert "b.csv.gz line 2: is not CSV: a row is over 1 MiB long" in message


def test_a_folder_with_nothing_to_read(fail: Fail, write_lines: Write, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    assert "the folder has no file to read; it has none" in str(fail(folder))
    write_lines("notes.md", ["x"], folder)
    assert "it has notes.md" in str(fail(folder))


def test_a_link_out_of_the_folder(fail: Fail, write_lines: Write, tmp_path: Path) -> None:
    outside = write_lines("outside.jsonl", ROWS)
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.jsonl").symlink_to(outside)
    (folder / "b.jsonl").symlink_to("../outside.jsonl")
    (folder / "c.jsonl").symlink_to("nothing")
    error = fail(folder)
    assert [fault.where for fault in error.faults] == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert "leads out of the folder" in error.faults[0].what
    assert "leads out of the folder" in error.faults[1].what
    assert "is not a file" in error.faults[2].what


def test_an_unreadable_file(fail: Fail, write_lines: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lines("a.jsonl", ROWS)

    def refuse(self: Path, *args: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    assert "a.jsonl: cannot be read: Permission denied" in str(fail(path))
