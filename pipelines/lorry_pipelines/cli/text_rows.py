"""Texts to predict, in a file: read once to check them, and again a part at a time, so that none are kept."""

import contextlib
import gzip
import shutil
import sys
import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lorry_components.data.layout import KNOWN_ENDINGS
from lorry_components.data.read_sequence import ReadSequence
from lorry_components.data.records import parse_json
from lorry_registry.errors import Fault, InvalidDataError, InvalidValueError
from lorry_registry.tasks.input_specs import Columns

_SHOWN_FAULTS = 20
# Before a text it is no part of it.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# No text has a NUL among its first bytes; spreadsheets, archives and Parquet do.
_LOOKED_AT_BYTES = 8192


Row = Mapping[str, str]


class TextRows(ReadSequence[Row]):
    """The rows of an open file, one a line; only where each starts is kept.

    Args:
        stream: The file.
        starts: Where the line of each row starts.
    """

    def __init__(self, stream: IO[bytes], starts: Sequence[int]) -> None:
        self._stream = stream
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts)

    def _read(self, numbers: range) -> list[Row]:
        return list(map(self._read_at, numbers))

    def _read_at(self, number: int) -> Row:
        self._stream.seek(self._starts[number])
        return parse_row(_decode(self._stream.readline()))


@contextlib.contextmanager
def open_rows(where: str, columns: Columns) -> Iterator[TextRows]:
    """Check all rows of a file, and yield them to be read from it.

    Args:
        where: The path of a file in UTF-8, or of one packed as ``.gz``, with one text a line, or JSON lines
            with ``text`` and, of pairs, ``text_pair``; ``-`` is standard input, which is copied to a file
            first.
        columns: The task's columns: a first line that names them is the header of a table.

    Raises:
        InvalidDataError: There is no such file, it is a table, or lines of it are no texts; the first are
            listed.
    """
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(_open(where))
            _refuse_table(stream, where, columns)
            starts, faults, total = _check_lines(stream)
        except FileNotFoundError as error:
            fault = Fault("file", "there is no such file")
            raise InvalidDataError(where, [fault], todo="give the path of a file of texts") from error
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            fault = Fault("file", f"cannot be read as UTF-8 text: {reason}")
            raise InvalidDataError(where, [fault], todo="give another file") from error
        if faults:
            raise InvalidDataError(where, faults, todo="correct these lines", total=total)
        yield TextRows(stream, starts)


def parse_row(line: str) -> dict[str, str]:
    """Return the row of a line.

    Raises:
        RecursionError: It is JSON, but nested too deeply.
        ValueError: It starts like JSON but is not, or has no text.
    """
    if not line.lstrip().startswith("{"):
        row = {"text": line}
    else:
        document = _parse_object(line)
        row = {key: document[key] for key in ("text", "text_pair") if isinstance(document.get(key), str)}
    if "text" not in row:
        raise ValueError("has no 'text'")
    if any("\0" in text for text in row.values()):
        raise ValueError("holds a NUL character")
    return row


def _parse_object(line: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = parse_json(line)
    except InvalidValueError:
        raise
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    return document


def _open(where: str) -> IO[bytes]:
    """Open a file that can be read twice."""
    if where.lower().endswith(".gz"):
        return gzip.open(where, "rb")  # type: ignore[return-value]  # it is read and sought, no more
    if where != "-":
        return Path(where).open("rb")
    copied: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    shutil.copyfileobj(sys.stdin.buffer, copied)
    return copied


def _refuse_table(stream: IO[bytes], where: str, columns: Columns) -> None:
    """Refuse what is no text with one text a line, but would be predicted as such."""
    stream.seek(0)
    start = stream.read(_LOOKED_AT_BYTES)
    shown = "standard input" if where == "-" else where
    if b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidDataError(
            shown,
            [Fault("file", "is not a text, and its ending stands for no table that can be read")],
            todo=f"give a table ({KNOWN_ENDINGS}), or a text with one text a line",
        )
    line = start.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "replace").lstrip().partition("\n")[0]
    named = {columns.text, columns.text_pair} - {None}
    if any(named <= {cell.strip().strip('"') for cell in line.split(mark)} for mark in ",\t;"):
        raise InvalidDataError(
            shown,
            [Fault("line 1", f"is the header of a table: {line.strip()[:60]!r} names what the task reads")],
            todo=f"save the table under a name that says how to read it: {KNOWN_ENDINGS}",
        )


def _check_lines(stream: IO[bytes]) -> tuple["array[int]", list[Fault], int]:
    """Return where each row starts, the first faults, and how many there are."""
    starts, faults, total = array("Q"), list[Fault](), 0
    stream.seek(0)
    start = len(_BYTE_ORDER_MARK) if stream.read(len(_BYTE_ORDER_MARK)) == _BYTE_ORDER_MARK else 0
    stream.seek(start)
    # By bytes: some readers of text also split it at U+2028 and other characters.
    for number, line in enumerate(stream, start=1):
        text = _decode(line)
        if text.strip():
            try:
                parse_row(text)
                starts.append(start)
            except (ValueError, RecursionError) as error:
                total += 1
                reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
                if len(faults) < _SHOWN_FAULTS:
                    faults.append(Fault(f"line {number}", reason))
        start += len(line)
    return starts, faults, total


def _decode(line: bytes) -> str:
    return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
