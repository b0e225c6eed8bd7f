"""From one file to rows, in any format. A damaged row is a fault; the rows after it are still read."""

import csv
import gzip
import json
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Self

from lorry_components.data.faults import FaultLog, shorten
from lorry_components.data.layout import find_format
from lorry_components.data.parquet_rows import read_parquet
from lorry_components.data.rows import MAX_FILE_BYTES, MAX_LINE_BYTES, TOO_LARGE, Record
from lorry_components.data.text_tables import BYTE_ORDER_MARK, Dialect, find_dialect, open_text
from lorry_registry.errors import InvalidValueError
from lorry_registry.tasks.input_specs import TableFormat
from lorry_registry.text.sizes import format_in

# Of a row of CSV, whose cells may go over many lines.
MAX_ROW_BYTES = 16 << 20


class _OtherEncodingError(Exception):
    """A text is not in the encoding that it is read in; the arguments are those of a fault."""


def read_records(
    path: Path,
    name: str,
    wanted: Sequence[str],
    log: FaultLog,
    form: TableFormat | None = None,
    *,
    expected: Collection[str] = (),
) -> Iterator[Record]:
    """Yield the rows of a file: JSON lines, CSV, TSV or Parquet, by its ending.

    Memory is bounded by one line of at most one MiB (or one batch of a Parquet file). What cannot be read
    is noted in the log and left out.

    Args:
        path: The file.
        name: What faults call it; its ending decides the format.
        wanted: The columns that are needed; others may be left out of the rows. None given: all are.
        log: Where faults go.
        form: How a text is written, as a task file says it; None: there is no task file.
        expected: The columns by which it is seen what separates cells, if none are wanted.
    """
    file_format = find_format(name)
    try:
        if path.stat().st_size == 0:
            log.add_file(name, "is empty (0 bytes)")
        elif file_format == "parquet":
            yield from read_parquet(path, name, wanted, log)
        else:
            with open_text(path, form.encoding if form else None) as stream:
                if file_format in ("csv", "tsv"):
                    dialect = find_dialect(path, name, wanted or expected, form)
                    yield from _read_delimited(stream, name, wanted, log, dialect)
                else:
                    yield from _read_json_lines(stream, name, log)
    except _OtherEncodingError as error:
        what, encoding = error.args
        remedy = f"save the file as UTF-8, for example with: iconv -f {encoding} -t UTF-8 OLD > NEW"
        said = f"; or give data.format: {{encoding: {encoding}}}"
        log.add_file(name, what, remedy + (said if form is not None else ""))
    except UnicodeError as error:
        log.add_file(
            name, f"cannot be read in the encoding {_find_encoding(error)}: {shorten(str(error), 120)}"
        )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        log.add_file(name, f"cannot be unpacked, it is damaged or not gzip: {shorten(str(error), 120)}")
    except OSError as error:
        log.add_file(name, f"cannot be read: {shorten(error.strerror or str(error), 120)}")


def _find_encoding(error: UnicodeError) -> str:
    return error.encoding if isinstance(error, UnicodeDecodeError) else "of the file"


def read_header(path: Path, dialect: Dialect) -> list[str]:
    """Return the columns of a CSV or TSV file as its first line names them; none: it cannot be read."""
    ignored = FaultLog(path.name)
    try:
        with open_text(path) as stream:
            lines = (line for _, line in read_lines(stream, path.name, ignored))
            rows = dialect.parse(lines)
            return next(
                ([cell.strip() for cell in cells] for cells in rows if any(map(str.strip, cells))), []
            )
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeError, _OtherEncodingError):
        return []


def place_row(name: str, number: int) -> str:
    """Return where a row is, for people: its file and its line, or its row when the file has no lines."""
    return f"{name} {'row' if find_format(name) in ('parquet', None) else 'line'} {number}"


def read_lines(stream: BinaryIO, name: str, log: FaultLog) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text in UTF-8 with their numbers, each with its line end.

    A line that is over one MiB is noted in the log and comes out empty, so that the numbers of those after it
    stay right.

    Raises:
        _OtherEncodingError: A line is not UTF-8; all such lines were counted.
    """
    number = offset = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        start = offset
        offset += len(line)
        text = ""
        if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            offset += _skip_line(stream)
            size = format_in(offset - start, "MiB")
            log.add(place_row(name, number), f"is {size} long; a line may have 1 MiB")
        else:
            try:
                text = _decode_line(line, is_first=start == 0)
            except UnicodeDecodeError as error:
                # Without its mark, if it had one; the position is the one in the file.
                position = start + len(line) - len(error.object) + error.start
                byte = f"byte 0x{error.object[error.start]:02x} at offset {position} of the file's text"
                _refuse_encoding(f"line {number}, {byte}", 1 + _count_undecodable(stream, offset))
        if offset > MAX_FILE_BYTES:
            log.add_file(name, *TOO_LARGE)
            break
        yield number, text


def _refuse_encoding(first: str, count: int) -> NoReturn:
    lines = f"in {count:,} lines, the first " if count > 1 else "in "
    # Which it is cannot be seen; texts of the West that are not UTF-8 are mostly in this one.
    raise _OtherEncodingError(f"is not UTF-8 {lines}{first}", "WINDOWS-1252")


def _count_undecodable(stream: BinaryIO, offset: int) -> int:
    """Return how many of the lines that follow are not UTF-8."""
    count = 0
    while offset <= MAX_FILE_BYTES and (line := stream.readline(MAX_LINE_BYTES)):
        offset += len(line)
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            count += 1
    return count


def _skip_line(stream: BinaryIO) -> int:
    skipped = 0
    while skipped <= MAX_FILE_BYTES and (rest := stream.readline(MAX_LINE_BYTES)):
        skipped += len(rest)
        if rest.endswith(b"\n"):
            break
    return skipped


def _decode_line(line: bytes, *, is_first: bool) -> str:
    return (line.removeprefix(BYTE_ORDER_MARK) if is_first else line).decode("utf-8")


def _read_json_lines(stream: BinaryIO, name: str, log: FaultLog) -> Iterator[Record]:
    before, filled = log.total, False
    for number, line in read_lines(stream, name, log):
        text = line.strip()
        if not text:
            continue
        is_first, filled = not filled, True
        try:
            values = parse_json(text)
        except json.JSONDecodeError as error:
            if is_first and (text == "{" or text.startswith("[")):
                log.add_file(name, "is one JSON document over many lines", "write one object a line")
                return
            log.add(place_row(name, number), f"is not a JSON object: {error.msg} at character {error.colno}")
        except InvalidValueError as error:
            log.add(place_row(name, number), error.what, error.remedy)
        except ValueError:
            log.add(place_row(name, number), "is not a JSON object that can be read: a number is too long")
        except RecursionError:
            log.add(place_row(name, number), "is not a JSON object that can be read: it is nested too deeply")
        else:
            if isinstance(values, dict):
                yield number, values
            else:
                remedy = "write one object a line" if isinstance(values, list) else ""
                log.add(place_row(name, number), f"is {describe_value(values)}, not a JSON object", remedy)
    if not filled and log.total == before:
        log.add_file(name, "holds only blank lines")


def parse_json(text: str) -> Any:
    """Return what a text of JSON holds.

    Raises:
        InvalidValueError: An object has a key twice: each reader would choose another of its values.
        ValueError: It is not JSON, or holds a number that is too long.
        RecursionError: It is nested too deeply.
    """
    return _JSON.decode(text)


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise InvalidValueError(
            f"has the key {shorten(repeated)!r} {keys.count(repeated)} times", "leave one of them"
        )
    return values


_JSON = json.JSONDecoder(object_pairs_hook=_refuse_repeated)


def _read_delimited(
    stream: BinaryIO, name: str, wanted: Sequence[str], log: FaultLog, dialect: Dialect
) -> Iterator[Record]:
    """Read CSV as RFC 4180 has it, or TSV as IANA has it.

    A row of empty cells only, as spreadsheets leave them behind, is a blank line.
    """
    before, header, filled = log.total, list[str](), False
    lines = _RowLines(read_lines(stream, name, log))
    reader = dialect.parse(lines)
    while True:
        lines.size = 0
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            reason, remedy = _explain_csv_error(error, has_quotes=dialect.has_quotes)
            kind = "CSV" if dialect.has_quotes else "TSV"
            log.add(place_row(name, number), f"is not {kind}: {reason}", remedy)
            return
        if cells is None:
            break
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            _check_header(header, wanted, name, log)
        elif len(cells) != len(header):
            filled = True
            log.add(place_row(name, number), f"has {len(cells)} cells where the header has {len(header)}")
        else:
            filled = True
            yield number, dict(zip(header, cells, strict=True))
    if not filled and log.total == before:
        log.add_file(name, "has a header but no rows" if header else "holds only blank lines")


class _RowLines:
    """The lines of a table, of which a row may take many, but not without end.

    Args:
        lines: The lines with their numbers.
    """

    def __init__(self, lines: Iterator[tuple[int, str]]) -> None:
        self.size = 0
        self._lines = lines

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        _, line = next(self._lines)
        self.size += len(line)
        if self.size > MAX_ROW_BYTES:
            raise csv.Error(f"a row is over {MAX_ROW_BYTES >> 20} MiB long")
        return line


def _explain_csv_error(error: csv.Error, *, has_quotes: bool) -> tuple[str, str]:
    """Return what a message of the csv module means for the person who wrote the file, and a remedy."""
    reason = str(error)
    if reason.startswith("new-line character"):
        return "a line ends in a carriage return alone", "save the file with usual line ends"
    if reason.startswith("field larger"):
        reason = f"a cell has over {csv.field_size_limit():,} characters"
    return reason, "is a quotation mark never closed?" if has_quotes else ""


def _check_header(header: Sequence[str], wanted: Sequence[str], name: str, log: FaultLog) -> None:
    for column in wanted:
        if header.count(column) > 1:
            log.add_file(name, f"has the column {shorten(column)!r} {header.count(column)} times")


def describe_value(value: object) -> str:
    """Return what a cell holds, for people, without the whole of it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return f"the number {shorten(repr(value), 24)}"
    for cell_type, name in ((str, "a string"), (list, "a list"), (dict, "an object"), (bytes, "bytes")):
        if isinstance(value, cell_type):
            return name
    return f"a {type(value).__name__}"
