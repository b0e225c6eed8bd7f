"""From one file to rows, whatever its format. A damaged row is a fault; the rows after it are still read."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

from lorry_components.data.faults import FaultLog, shorten
from lorry_components.data.layout import find_format
from lorry_components.data.parquet_rows import read_parquet
from lorry_components.data.rows import MAX_FILE_BYTES, TOO_LARGE, Record
from lorry_registry.errors import InvalidValueError
from lorry_registry.sizes import format_in

MAX_LINE_BYTES = 1 << 20
# Of a row of CSV, whose cells may go over many lines.
MAX_ROW_BYTES = 16 << 20

_BOM = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class _CellReader(Protocol):
    """What the csv module returns, whose type has no public name."""

    @property
    def line_num(self) -> int: ...

    def __iter__(self) -> Self: ...

    def __next__(self) -> list[str]: ...


def read_records(path: Path, name: str, wanted: Sequence[str], log: FaultLog) -> Iterator[Record]:
    """Yield the rows of a file: JSON lines, CSV, TSV or Parquet, by its ending.

    Memory is bounded by one line of at most one MiB (or one batch of a Parquet file). What cannot be read
    is noted in the log and left out.

    Args:
        path: The file.
        name: What faults call it; its ending decides the format.
        wanted: The columns that are needed; others may be left out of the rows. None given: all are.
        log: Where faults go.
    """
    file_format = find_format(name)
    try:
        if path.stat().st_size == 0:
            log.add_file(name, "is empty (0 bytes)")
        elif file_format == "parquet":
            yield from read_parquet(path, name, wanted, log)
        elif file_format in ("csv", "tsv"):
            with _open_text(path) as stream:
                yield from _read_delimited(stream, name, wanted, log, tabs=file_format == "tsv")
        else:
            with _open_text(path) as stream:
                yield from _read_json_lines(stream, name, log)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        log.add_file(name, f"cannot be unpacked, it is damaged or not gzip: {shorten(str(error), 120)}")
    except OSError as error:
        log.add_file(name, f"cannot be read: {shorten(error.strerror or str(error), 120)}")


def read_header(path: Path) -> list[str]:
    """Return the columns of a CSV or TSV file as its first line names them; none: it cannot be read."""
    ignored = FaultLog(path.name)
    try:
        with _open_text(path) as stream:
            lines = (line for _, line in read_lines(stream, path.name, ignored))
            rows = _parse_cells(lines, tabs=find_format(path.name) == "tsv")
            return next(
                ([cell.strip() for cell in cells] for cells in rows if any(map(str.strip, cells))), []
            )
    except (OSError, EOFError, zlib.error, csv.Error):
        return []


def has_byte_order_mark(path: Path) -> bool:
    """Return whether a text begins with the mark that spreadsheets know UTF-8 by.

    Raises:
        OSError: It cannot be read.
    """
    with _open_text(path) as stream:
        return stream.read(len(_BOM)) == _BOM


def place_row(name: str, number: int) -> str:
    """Return where a row is, for people: its file and its line, or its row when the file has no lines."""
    return f"{name} {'row' if find_format(name) in ('parquet', None) else 'line'} {number}"


def read_lines(stream: BinaryIO, name: str, log: FaultLog) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text in UTF-8 with their numbers, each with its line end.

    A line that is over one MiB or is not UTF-8 is noted in the log and comes out empty, so that the numbers
    of those after it stay right. Of the lines that are not UTF-8 the first is listed and the others are
    counted: usually all have one reason.
    """
    number = offset = undecodable = 0
    encoding = ""
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
                undecodable += 1
                if undecodable == 1:
                    encoding = "UTF-16" if _is_utf16(line, start) else "WINDOWS-1252"
                    _note_encoding(line, start, error, place_row(name, number), log)
        if offset > MAX_FILE_BYTES:
            log.add_file(name, *TOO_LARGE)
            break
        yield number, text
    if undecodable > 1:
        log.add_file(
            name,
            f"has {undecodable:,} lines that are not UTF-8",
            f"save the file as UTF-8, for example with: iconv -f {encoding} -t UTF-8 OLD > NEW",
        )


def _skip_line(stream: BinaryIO) -> int:
    skipped = 0
    while skipped <= MAX_FILE_BYTES and (rest := stream.readline(MAX_LINE_BYTES)):
        skipped += len(rest)
        if rest.endswith(b"\n"):
            break
    return skipped


def _decode_line(line: bytes, *, is_first: bool) -> str:
    return (line.removeprefix(_BOM) if is_first else line).decode("utf-8")


def _is_utf16(line: bytes, start: int) -> bool:
    return start == 0 and line.startswith(_UTF16_MARKS)


def _note_encoding(line: bytes, start: int, error: UnicodeDecodeError, where: str, log: FaultLog) -> None:
    # Without its mark, if it had one; the position is the one in the file.
    text = error.object
    position = start + len(line) - len(text) + error.start
    hint = "; it looks like UTF-16" if _is_utf16(line, start) else ""
    log.add(
        where, f"is not UTF-8: byte 0x{text[error.start]:02x} at offset {position} of the file's text{hint}"
    )


def _open_text(path: Path) -> BinaryIO:
    if path.name.lower().endswith(".gz"):
        # A GzipFile is a BufferedIOBase, which is all that is asked of it here.
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


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
    stream: BinaryIO, name: str, wanted: Sequence[str], log: FaultLog, *, tabs: bool
) -> Iterator[Record]:
    """Read CSV as RFC 4180 has it, and TSV as IANA has it: without quotation marks.

    A row of empty cells only, as spreadsheets leave them behind, is a blank line.
    """
    before, header, filled = log.total, list[str](), False
    lines = _RowLines(read_lines(stream, name, log))
    reader = _parse_cells(lines, tabs=tabs)
    while True:
        lines.size = 0
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            reason, remedy = _explain_csv_error(error, tabs=tabs)
            log.add(place_row(name, number), f"is not {'TSV' if tabs else 'CSV'}: {reason}", remedy)
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


def _parse_cells(lines: Iterator[str], *, tabs: bool) -> "_CellReader":
    if tabs:
        return csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    # Strict, for otherwise a quotation mark that is never closed swallows the rest of the file unnoticed.
    return csv.reader(lines, strict=True)


def _explain_csv_error(error: csv.Error, *, tabs: bool) -> tuple[str, str]:
    """Return what a message of the csv module means for the person who wrote the file, and a remedy."""
    reason = str(error)
    if reason.startswith("new-line character"):
        return "a line ends in a carriage return alone", "save the file with usual line ends"
    if reason.startswith("field larger"):
        reason = f"a cell has over {csv.field_size_limit():,} characters"
    return reason, "" if tabs else "is a quotation mark never closed?"


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
