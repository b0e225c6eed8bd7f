"""The encoding of a text table, and the separator of its cells.

Both are seen by the first lines, where they can be. All that can be read as UTF-8 with the separator that the
file's ending stands for is read so: a separator is looked for only where that makes no table.
"""

import codecs
import contextlib
import csv
import gzip
import io
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, Self

from lorry_components.data.layout import find_format
from lorry_components.data.rows import MAX_LINE_BYTES
from lorry_registry.tasks.input_specs import TableFormat

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

_DELIMITERS = (",", ";", "\t", "|")
_HEAD_LINES, _HEAD_BYTES = 100, 1 << 20
_CHUNK_BYTES = 1 << 16
# In every second byte of letters, digits and marks of ASCII.
_LOOKED_AT_BYTES = 64


class _CellReader(Protocol):
    """What the csv module returns, whose type has no public name."""

    @property
    def line_num(self) -> int: ...

    def __iter__(self) -> Self: ...

    def __next__(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the cells of a table are written.

    Attributes:
        delimiter: What stands between two cells.
        has_quotes: Whether quotation marks are as RFC 4180 has them; TSV as IANA has it has none.
    """

    delimiter: str
    has_quotes: bool

    def parse(self, lines: Iterator[str]) -> _CellReader:
        """Return the rows of lines."""
        if not self.has_quotes:
            return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)
        # Strict, for otherwise a quotation mark that is never closed swallows the rest of the file unnoticed.
        return csv.reader(lines, delimiter=self.delimiter, strict=True)


class _Transcoder(io.RawIOBase):
    """A stream in another encoding, as UTF-8."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._waiting = b""
        self._is_done = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        while not self._waiting and not self._is_done:
            chunk = self._stream.read(_CHUNK_BYTES)
            self._is_done = not chunk
            self._waiting = self._decoder.decode(chunk, final=self._is_done).encode("utf-8")
        size = min(len(buffer), len(self._waiting))
        buffer[:size], self._waiting = self._waiting[:size], self._waiting[size:]
        return size

    def close(self) -> None:
        self._stream.close()
        super().close()


def open_text(path: Path, encoding: str | None = None) -> BinaryIO:
    """Open a text, packed or not, to be read as UTF-8.

    Args:
        path: The file.
        encoding: Its encoding; None: UTF-16 if it looks like it, or else UTF-8.

    Raises:
        OSError: It cannot be read. A UnicodeError may follow while it is read.
    """
    stream = _open_bytes(path)
    try:
        start: bytes = stream.peek(_LOOKED_AT_BYTES)  # type: ignore[attr-defined]
    except BaseException:
        stream.close()
        raise
    found = encoding or _find_utf16(start[:_LOOKED_AT_BYTES])
    return stream if found is None else io.BufferedReader(_Transcoder(stream, found), _CHUNK_BYTES)


def has_byte_order_mark(path: Path) -> bool:
    """Return whether a text begins with a mark by which spreadsheets know its encoding.

    Raises:
        OSError: It cannot be read.
    """
    with _open_bytes(path) as stream:
        return stream.read(len(BYTE_ORDER_MARK)).startswith((BYTE_ORDER_MARK, *UTF16_MARKS))


def find_dialect(path: Path, name: str, wanted: Collection[str], form: TableFormat | None = None) -> Dialect:
    """Return how the cells of a CSV or TSV file are written.

    Args:
        path: The file.
        name: Its ending says what separates cells unless the first lines say otherwise.
        wanted: The columns that it should have.
        form: What is said of it.
    """
    usual = "\t" if find_format(name) == "tsv" else ","
    form = form or TableFormat()
    delimiter = form.delimiter or _find_delimiter(_read_head(path, form.encoding), usual, wanted)
    return Dialect(delimiter, has_quotes=usual != "\t" or delimiter != "\t")


def _open_bytes(path: Path) -> BinaryIO:
    if path.name.lower().endswith(".gz"):
        # A GzipFile is a BufferedIOBase, which is all that is asked of it here.
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def _find_utf16(start: bytes) -> str | None:
    """Return which UTF-16 a text is in by its mark, or by the NUL in each of its first characters."""
    if start.startswith(UTF16_MARKS):
        return "utf-16"
    if len(start) > 3 and set(start[1::2]) == {0}:
        return "utf-16-le"
    return "utf-16-be" if len(start) > 3 and set(start[::2]) == {0} else None


def _read_head(path: Path, encoding: str | None) -> list[str]:
    """Return the first lines; none if they cannot be read, which is said where all of them are read."""
    head: list[str] = []
    size = 0
    try:
        with open_text(path, encoding) as stream:
            while len(head) < _HEAD_LINES and size < _HEAD_BYTES:
                line = stream.readline(MAX_LINE_BYTES + 1)
                if not line:
                    break
                size += len(line)
                head.append(line.removeprefix(b"" if head else BYTE_ORDER_MARK).decode("utf-8"))
    except (OSError, EOFError, UnicodeError, zlib.error):
        return []
    return head


def _find_delimiter(head: Sequence[str], usual: str, wanted: Collection[str]) -> str:
    rows = {
        delimiter: _parse_head(head, Dialect(delimiter, has_quotes=(usual, delimiter) != ("\t", "\t")))
        for delimiter in (usual, *(each for each in _DELIMITERS if each != usual))
    }
    if _has_all(rows[usual], wanted) or _is_table(rows[usual]):
        return usual
    tables = [delimiter for delimiter, read in rows.items() if _is_table(read)]
    named = [delimiter for delimiter, read in rows.items() if _has_all(read, wanted)]
    found = tables or named
    return max(found, key=lambda delimiter: len(rows[delimiter][0])) if found else usual


def _has_all(rows: Sequence[Sequence[str]], wanted: Collection[str]) -> bool:
    return bool(rows and wanted) and set(wanted) <= {cell.strip() for cell in rows[0]}


def _is_table(rows: Sequence[Sequence[str]]) -> bool:
    return bool(rows) and len(rows[0]) > 1 and all(len(cells) == len(rows[0]) for cells in rows)


def _parse_head(head: Iterable[str], dialect: Dialect) -> list[list[str]]:
    """Return the first rows, without blank ones; they end before one that does not."""
    rows: list[list[str]] = []
    with contextlib.suppress(csv.Error):
        rows.extend(cells for cells in dialect.parse(iter(head)) if any(map(str.strip, cells)))
    return rows
