"""``lorry predict --file TABLE``: read by the task's columns, written with predictions beside."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click.testing
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorry_pipelines.cli import lorry, predict
from lorry_pipelines.cli.row_progress import show_rows
from lorry_registry.errors import InvalidDataError, UsageError

Run = Callable[..., click.testing.Result]

_TEXTS = ["good", 'bad, "very"\nbad', "ümläut 🙂", "fine", "poor"]


class _Predictor:
    """Answers with the length of a text, two rows at a time."""

    def check_rows(self, rows: Sequence[Mapping[str, str]]) -> None:
        assert len(list(rows)) == len(rows)

    def predict_parts(
        self, rows: Sequence[Mapping[str, str]], report: Callable[[int], None]
    ) -> Iterator[list[dict[str, Any]]]:
        for start in range(0, len(rows), 2):
            part = rows[start : start + 2]
            yield [
                {
                    "label": " ".join(row.values()).upper(),
                    "score": len(row["text"]) / 100,
                    "scores": {"a\tb": 0.25, "c": 0.75},
                }
                for row in part
            ]
            report(start + len(part))


class _TaskType:
    prediction_fields: Mapping[str, str] = {"label": "string", "score": "double", "scores": "string"}

    def store_prediction(self, prediction: dict[str, Any], _folder: Path, _name: str) -> dict[str, Any]:
        return prediction

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        return str(prediction["label"])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Return a function that runs ``lorry predict`` with an adapter that needs no base."""
    monkeypatch.chdir(tmp_path)

    def invoke(
        *arguments: str, columns: Mapping[str, str] | None = None, given: str = ""
    ) -> click.testing.Result:
        named = dict(columns or {"text": "body", "label": "stars"})
        row = {"text": "x"} | ({"text_pair": "y"} if "text_pair" in named else {})
        manifest = SimpleNamespace(recipe={"data": {"columns": named}}, probe=SimpleNamespace(rows=(row,)))
        resolution = SimpleNamespace(manifest=manifest, adapter_id="sha256:0")
        registry = SimpleNamespace(resolve=lambda *_: resolution)
        monkeypatch.setattr(predict, "open_registry", lambda: registry)
        loaded = SimpleNamespace(predictor=_Predictor(), task_type=_TaskType())
        monkeypatch.setattr(predict, "_load", lambda *_: loaded)
        return click.testing.CliRunner().invoke(lorry, ["predict", "reviews", *arguments], input=given)

    return invoke


def _write_csv(path: Path, rows: Sequence[Sequence[object]], delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)


def test_a_csv_comes_back_with_predictions_beside(run: Run, tmp_path: Path) -> None:
    _write_csv(
        tmp_path / "new.csv", [["id", "body", "stars"], *([n, text, n] for n, text in enumerate(_TEXTS))]
    )
    result = run("--file", "new.csv", "--output", "out.csv")
    assert result.exit_code == 0, result.output
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["id", "body", "stars", "predicted_label", "predicted_score", "predicted_scores"]
    assert [row["body"] for row in rows] == _TEXTS
    assert [row["predicted_label"] for row in rows] == [text.upper() for text in _TEXTS]
    assert float(rows[0]["predicted_score"]) == 0.04
    assert json.loads(rows[0]["predicted_scores"]) == {"a\tb": 0.25, "c": 0.75}
    assert result.stdout == "out.csv: 5 rows with predicted_label, predicted_score, predicted_scores\n"
    assert result.stderr == "new.csv: a table with 5 rows; the text is in the column 'body'\n"


def test_the_mark_of_spreadsheets_stays(run: Run, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_bytes("\ufeffbody\nä\n".encode())
    assert run("--file", "new.csv", "--output", "out.csv").exit_code == 0
    assert (tmp_path / "out.csv").read_bytes().startswith("\ufeffbody,predicted_label".encode())


def test_a_packed_tsv_comes_back_packed_and_the_same_each_time(run: Run, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "new.tsv.gz", "wt", encoding="utf-8") as stream:
        stream.write('body\tid\n"quoted" text\t1\n\nother\t2\n')
    for name in ("one.tsv.gz", "two.tsv.gz"):
        assert run("--file", "new.tsv.gz", "--output", name).exit_code == 0
    assert (tmp_path / "one.tsv.gz").read_bytes() == (tmp_path / "two.tsv.gz").read_bytes()
    lines = gzip.decompress((tmp_path / "one.tsv.gz").read_bytes()).decode().splitlines()
    assert lines[1] == '"quoted" text\t1\t"QUOTED" TEXT\t0.13\t{"a\\tb": 0.25, "c": 0.75}'
    assert len(lines) == 3


def test_json_lines_keep_their_types_and_what_is_nested(run: Run, tmp_path: Path) -> None:
    records = [{"body": text, "more": {"n": [number, None]}} for number, text in enumerate(_TEXTS)]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert run("--file", "new.jsonl", "--output", "out.jsonl").exit_code == 0
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [{key: record[key] for key in ("body", "more")} for record in written] == records
    assert written[2]["predicted_scores"] == {"a\tb": 0.25, "c": 0.75}


def test_half_of_a_surrogate_pair_in_another_column_is_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text('{"body": "ä", "note": "\\ud83d"}\n', "utf-8")
    assert run("--file", "new.jsonl", "--output", "out.jsonl").exit_code == 0
    assert json.loads((tmp_path / "out.jsonl").read_text("utf-8"))["note"] == "\ud83d"


def test_parquet_keeps_its_types(run: Run, tmp_path: Path) -> None:
    table = pa.table(
        {"body": _TEXTS, "when": pa.array(range(5), pa.timestamp("ms")), "vector": [[0.5, 1.0]] * 5}
    )
    pq.write_table(table, tmp_path / "new.parquet")
    assert run("--file", "new.parquet", "--output", "out.parquet").exit_code == 0
    written = pq.read_table(tmp_path / "out.parquet")
    assert written.select(table.column_names).equals(table)
    assert written.schema.field("predicted_score").type == pa.float64()
    assert written.column("predicted_label").to_pylist() == [text.upper() for text in _TEXTS]
    assert json.loads(written.column("predicted_scores")[0].as_py()) == {"a\tb": 0.25, "c": 0.75}


def test_pairs_are_read_by_both_names(run: Run, tmp_path: Path) -> None:
    _write_csv(tmp_path / "new.csv", [["b", "a"], ["two", "one"]])
    columns = {"text": "a", "text_pair": "b", "label": "l"}
    result = run("--file", "new.csv", columns=columns)
    assert result.exit_code == 0, result.output
    assert "ONE TWO  one | two" in result.stdout
    assert "the texts are in the columns 'a' and 'b'" in result.stderr


def test_what_json_calls_them_is_read_where_the_task_s_names_are_not_there(run: Run, tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text('{"text": "one"}\n')
    result = run("--file", "new.jsonl", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["label"] == "ONE"


def test_a_pair_is_read_as_json_calls_it_where_one_name_is_the_task_s(run: Run, tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text('{"text": "one", "text_pair": "two"}\n')
    columns = {"text": "text", "text_pair": "more", "label": "l"}
    result = run("--file", "new.jsonl", "--json", columns=columns)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["label"] == "ONE TWO"


def test_a_missing_column_is_told_with_what_is_there(run: Run, tmp_path: Path) -> None:
    _write_csv(tmp_path / "new.csv", [["id", "Bodi"], ["1", "one"]])
    result = run("--file", "new.csv", "--output", "out.csv")
    assert result.exit_code == InvalidDataError.exit_code
    assert "has no column 'body' (data.columns.text); it has Bodi, id" in result.output
    assert "did you mean 'Bodi'?" in result.output
    assert "the task reads the column 'body' and nothing else" in result.output
    assert not (tmp_path / "out.csv").exists()


def test_cells_that_are_no_texts_are_told_with_their_lines(run: Run, tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text('{"body": "one"}\n{"body": 2}\n{"body": " "}\n{"other": "x"}\n')
    result = run("--file", "new.jsonl")
    assert result.exit_code == InvalidDataError.exit_code
    for told in (
        "line 2: column 'body' is the number 2",
        "line 3: column 'body' is empty",
        "line 4: has no 'body'",
    ):
        assert told in result.output


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty (0 bytes)"),
        (b"body,id\n", "has a header but no rows"),
        (b"body,id,id\na,b,c\n", "has the column 'id' 2 times"),
        (b"body,id\na\n", "has 1 cells where the header has 2"),
        (b'body\n"a\n', "is not CSV"),
        (b"body\n\xe4\n", "is not UTF-8"),
        (b"bodi;id\na;1\n", "has no column 'body' (data.columns.text); it has bodi, id"),
    ],
)
def test_a_table_with_faults_is_refused(run: Run, tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "new.csv").write_bytes(content)
    result = run("--file", "new.csv", "--output", "out.csv")
    assert result.exit_code == InvalidDataError.exit_code, result.output
    assert told in result.output


def test_a_file_that_is_not_there_is_told(run: Run) -> None:
    result = run("--file", "none.csv")
    assert result.exit_code == InvalidDataError.exit_code
    assert "there is no such file" in result.output


@pytest.mark.parametrize("line", ["body", "id,body", '"body","stars"', "id\tbody", "stars;body"])
@pytest.mark.parametrize("name", ["new.txt", "-"])
def test_a_header_is_no_text(run: Run, tmp_path: Path, line: str, name: str) -> None:
    (tmp_path / "new.txt").write_text(f"{line}\none\n")
    result = run("--file", name, given=f"{line}\none\n")
    assert result.exit_code == InvalidDataError.exit_code, result.output
    assert "line 1: is the header of a table" in result.output
    assert "save the table under a name that says how to read it: .jsonl" in result.output


def test_a_text_that_names_a_column_among_others_is_a_text(run: Run, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("a body of water, and more\n")
    result = run("--file", "new.txt")
    assert result.exit_code == 0, result.output
    assert result.stderr == "new.txt: one text a line, 1 text\n"


def test_what_is_no_text_is_not_read_as_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "new.xlsx").write_bytes(b"PK\x03\x04\x14\0\0\0\x08")
    result = run("--file", "new.xlsx")
    assert result.exit_code == InvalidDataError.exit_code
    assert "its ending stands for no table that can be read" in result.output
    assert ".parquet" in result.output


@pytest.mark.parametrize("output", ["out.csv", "out.tsv", "out.jsonl", "out.jsonl.gz"])
def test_texts_become_a_table(run: Run, tmp_path: Path, output: str) -> None:
    with gzip.open(tmp_path / "new.txt.gz", "wt") as packed:
        packed.write("one\ttab\ntwo\n")
    result = run("--file", "new.txt.gz", "--output", output)
    assert result.exit_code == 0, result.output
    content = (tmp_path / output).read_bytes()
    text = (gzip.decompress(content) if output.endswith(".gz") else content).decode()
    assert text.startswith(("text,predicted_label", "text\tpredicted_label", '{"text": "one\\ttab"'))
    assert len(text.splitlines()) == (2 if "jsonl" in output else 3)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["one", "--output", "out.csv"], "texts on the command line have no file to write beside"),
        (["--file", "new.csv", "--output", "out.jsonl"], "the ending of out.jsonl is not that of the file"),
        (["--file", "new.csv", "--output", "out"], "the ending of out is not that of the file"),
        (["--file", "new.txt", "--output", "out.parquet"], "give .csv, .tsv or .jsonl"),
        (["--file", "new.csv", "--output", "no/out.csv"], "there is no folder"),
        (["--file", "new.csv", "--output", "./new.csv"], "the file to predict would be replaced"),
        (["--file", "new.csv", "--output", "out.csv", "--json"], "predictions are written or printed"),
    ],
)
def test_an_output_that_cannot_be_is_refused_first(
    run: Run, tmp_path: Path, arguments: list[str], told: str
) -> None:
    _write_csv(tmp_path / "new.csv", [["body"], ["one"]])
    result = run(*arguments)
    assert result.exit_code == UsageError.exit_code
    assert told in result.output


@pytest.mark.parametrize("name", ["csv", "parquet", "jsonl"])
def test_a_column_that_a_prediction_would_fill_is_not_replaced(run: Run, tmp_path: Path, name: str) -> None:
    if name == "csv":
        _write_csv(tmp_path / "new.csv", [["body", "predicted_label"], ["one", "1"]])
    elif name == "parquet":
        pq.write_table(pa.table({"body": ["one"], "predicted_label": ["1"]}), tmp_path / "new.parquet")
    else:
        (tmp_path / "new.jsonl").write_text('{"body": "one"}\n{"body": "two", "predicted_label": "1"}\n')
    (tmp_path / f"out.{name}").write_text("before")
    result = run("--file", f"new.{name}", "--output", f"out.{name}")
    assert result.exit_code == InvalidDataError.exit_code
    assert "predicted_label: is in it already" in result.output
    assert (tmp_path / f"out.{name}").read_text() == "before"


def test_a_table_that_changes_while_it_is_read_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_csv(tmp_path / "new.csv", [["body"], *([text] for text in _TEXTS)])
    monkeypatch.setattr(
        _Predictor, "check_rows", lambda *_: _write_csv(tmp_path / "new.csv", [["body"], ["one"], ["two"]])
    )
    result = run("--file", "new.csv", "--output", "out.csv")
    assert result.exit_code == InvalidDataError.exit_code, result.output
    assert "it was changed while it was read" in result.output
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_shows_how_many_rows_are_done(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    with show_rows(5000, stream) as report:
        report(4096)
    assert ("4096/5000" in stream.getvalue()) == is_terminal


@pytest.mark.parametrize("output", ["out.csv", "out.tsv", "out.jsonl"])
def test_texts_that_a_spreadsheet_would_compute_are_told(run: Run, tmp_path: Path, output: str) -> None:
    # Labels are the texts in capitals here. Numbers are none of these, and what is written stays as it is.
    texts = ["=1+1", "@ann", "- a", "+cmd", "-1.5", "+", "a=b", "fine"]
    (tmp_path / "new.txt").write_text("".join(f"{text}\n" for text in texts))
    result = run("--file", "new.txt", "--output", output)
    assert result.exit_code == 0, result.output
    told = "4 rows with a text that begins like a formula" in " ".join(result.stderr.split())
    assert told == (output != "out.jsonl")
    assert "'=1+1" not in (tmp_path / output).read_text("utf-8")


@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-16"), ("|", "utf-8"), (",", "utf-16-le")]
)
def test_a_table_as_spreadsheets_write_it_comes_back_like_it(
    run: Run, tmp_path: Path, delimiter: str, encoding: str
) -> None:
    rows = [["id", "body"], ["1", 'a "b", c'], ["2", "d;\te|ü"]]
    with (tmp_path / "new.csv").open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)
    result = run("--file", "new.csv", "--output", "out.csv")
    assert result.exit_code == 0, result.output
    has_mark = encoding in ("utf-8-sig", "utf-16")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8-sig" if has_mark else "utf-8") as stream:
        written = list(csv.reader(stream, delimiter=delimiter))
    assert [row[:3] for row in written] == [
        ["id", "body", "predicted_label"],
        *([*row, row[1].upper()] for row in rows[1:]),
    ]


def test_a_table_in_another_encoding_is_told_with_the_command_that_helps(run: Run, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_bytes(b"body,id\ncaf\xe9,1\n")
    result = run("--file", "new.csv")
    told = " ".join(result.output.split())
    assert "new.csv: 1 fault" in told
    assert "iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW" in told
    # There is no task file to write it into.
    assert "data.format" not in told
