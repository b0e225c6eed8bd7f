"""Predictions beside the rows that they are for, in a file of the same format; none of them are kept."""

import contextlib
import csv
import gzip
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from lorry_components.data.faults import shorten
from lorry_components.data.layout import find_format
from lorry_components.data.text_tables import Dialect
from lorry_registry.errors import Fault, InvalidDataError, StoreError
from lorry_registry.files.atomic_write import whole_file

PREFIX = "predicted_"
"""What the columns of predictions begin with."""

Record = Mapping[str, Any]
_Write = Callable[[Record], None]

# MLflow's names of types, which task types give their fields.
_ARROW_TYPES = {"string": "string", "double": "float64", "long": "int64"}
_MARK = b"\xef\xbb\xbf"
_PARQUET_ROWS = 4096
# What a spreadsheet takes for the beginning of a formula, which it computes when the file is opened.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        rows: How many rows.
        added: The columns of the predictions.
        formulas: In how many rows a spreadsheet would take a text for a formula.
    """

    rows: int
    added: tuple[str, ...]
    formulas: int = 0


def name_columns(prediction: Record) -> list[str]:
    """Return the columns that a prediction fills."""
    return [f"{PREFIX}{field}" for field in prediction]


def write_beside(
    output: Path,
    records: Iterable[Record],
    predictions: Iterable[Record],
    *,
    mark: bool = False,
    dialect: Dialect | None = None,
) -> Written:
    r"""Write rows with their predictions as CSV, TSV or JSON lines, by the ending of the file.

    Nested values become JSON in cells of CSV and TSV. TSV has no quotation marks: tabs and line ends in its
    cells are written as ``\t``, ``\n`` and ``\r``.

    Args:
        output: The file, which appears whole, in place of one that may be there.
        records: The rows, with all columns to be written.
        predictions: As many predictions, in the same order, all with the same fields.
        mark: Whether a text starts with the mark that spreadsheets know UTF-8 by.
        dialect: How the cells of CSV or TSV are written; None: as the ending says.

    Raises:
        InvalidDataError: A row has a column that a prediction is to fill.
        StoreError: The file cannot be written.
    """
    predicted = iter(predictions)
    first = next(predicted, None)
    added = name_columns(first) if first is not None else []
    count = formulas = 0
    has_cells = find_format(output.name) in ("csv", "tsv")
    with _told_apart(output), whole_file(output) as partial, _open_text(partial, output, mark=mark) as stream:
        write: _Write | None = None
        ahead = [first] if first is not None else []
        for record, prediction in zip(records, itertools.chain(ahead, predicted), strict=True):
            if write is None:
                write = _choose_writer(stream, output, [*record, *added], dialect)
            _refuse_filled(record, added)
            row = {**record, **{f"{PREFIX}{field}": value for field, value in prediction.items()}}
            write(row)
            count += 1
            formulas += has_cells and any(map(_is_formula, row.values()))
    return Written(count, tuple(added), formulas)


def write_parquet_beside(
    output: Path, source: Path, predictions: Iterable[Record], types: Mapping[str, str]
) -> Written:
    """Write a Parquet table with predictions beside; its own columns keep their types.

    Args:
        output: The file, which appears whole, in place of one that may be there.
        source: The table.
        predictions: A prediction for each of its rows, in the same order, all with the same fields.
        types: MLflow's names of the types of fields; nested values become JSON.

    Raises:
        InvalidDataError: The table has a column that a prediction is to fill.
        StoreError: The file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    predicted = iter(predictions)
    count, added = 0, list[str]()
    with _told_apart(output), contextlib.ExitStack() as stack:
        table = stack.enter_context(pq.ParquetFile(source))
        partial = stack.enter_context(whole_file(output))
        writer: Any = None
        for batch in table.iter_batches(batch_size=_PARQUET_ROWS):
            part = list(itertools.islice(predicted, len(batch)))
            added = name_columns(part[0])
            _refuse_filled(dict.fromkeys(batch.schema.names), added)
            filled = batch
            for field, column in zip(part[0], added, strict=True):
                cells = [_flatten(prediction[field]) for prediction in part]
                known = _ARROW_TYPES.get(types.get(field, ""))
                kind = pa.type_for_alias(known) if known else None
                filled = filled.append_column(column, pa.array(cells, kind))
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(partial, filled.schema))
            writer.write_batch(filled)
            count += len(batch)
    return Written(count, tuple(added))


def _is_formula(cell: object) -> bool:
    if not isinstance(cell, str) or len(cell) < 2 or not cell.startswith(_FORMULA_STARTS):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def _refuse_filled(record: Record, added: Sequence[str]) -> None:
    taken = [column for column in added if column in record]
    if taken:
        named = ", ".join(shorten(column) for column in taken)
        raise InvalidDataError(
            "the file to predict",
            [Fault(named, "is in it already, and is what a prediction would be called")],
            todo="rename these columns of the file, or predict a file without them",
        )


@contextlib.contextmanager
def _told_apart(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the predictions cannot be written: {error.strerror or error}",
            where=str(output),
            todo="give another --output",
        ) from error


@contextlib.contextmanager
def _open_text(partial: Path, output: Path, *, mark: bool) -> Iterator[IO[str]]:
    with contextlib.ExitStack() as stack:
        stream: IO[bytes] = stack.enter_context(partial.open("wb"))
        if output.name.lower().endswith(".gz"):
            # Without name and time, so that equal predictions make equal files.
            packed = gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0)
            stream = cast("IO[bytes]", stack.enter_context(packed))
        if mark:
            stream.write(_MARK)
        yield stack.enter_context(io.TextIOWrapper(stream, encoding="utf-8", newline=""))


def _choose_writer(stream: IO[str], output: Path, columns: Sequence[str], dialect: Dialect | None) -> _Write:
    file_format = find_format(output.name)
    if file_format == "json lines":
        return lambda record: _write_json(stream, record)
    if file_format == "tsv" and (dialect is None or not dialect.has_quotes):
        stream.write("\t".join(map(_escape, columns)) + "\n")
        return lambda record: _write_tabs(stream, columns, record)
    cells = csv.writer(stream, delimiter=dialect.delimiter if dialect else ",", lineterminator="\n")
    cells.writerow(columns)
    return lambda record: cells.writerow([_flatten(record.get(column)) for column in columns])


def _write_json(stream: IO[str], record: Record) -> None:
    line = json.dumps(record, ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can escape and UTF-8 cannot hold.
        line = json.dumps(record)
    stream.write(line + "\n")


def _write_tabs(stream: IO[str], columns: Sequence[str], record: Record) -> None:
    stream.write("\t".join(_escape(_flatten(record.get(column))) for column in columns) + "\n")


def _escape(cell: object) -> str:
    text = "" if cell is None else str(cell)
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _flatten(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
