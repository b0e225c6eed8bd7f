"""Profiles of a table's columns, counted over its rows."""

import math
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lorry_components.data.faults import FaultLog
from lorry_components.data.layout import find_format
from lorry_components.data.records import read_records
from lorry_components.data.rows import is_missing
from lorry_components.data.sources.local import list_local_files
from lorry_registry.errors import Fault, InvalidDataError

MOST_ROWS = 50_000
_MOST_VALUES = 5_000
_LONGEST_KEY = 80
# A text of a script without spaces is one word by white space.
_CHARACTERS_PER_WORD = 6.0


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column.

    Attributes:
        name: Its name.
        rows: How many rows of the table have something in it; what stands for a missing value is nothing.
        values: Value -> rows, of the first some thousand different values.
        distinct: How many different values there are, as far as they were counted.
        are_numbers: Whether each value is a finite number.
        are_whole: Whether each value is a whole number.
        decimal: What stands before the decimal places of its numbers.
        are_structures: Whether some value is a list or an object.
        mean_words: The mean length in words; of texts without spaces, what their characters would be.
        p99_words: The length that 99 % of the texts do not exceed.
    """

    name: str
    rows: int
    values: Mapping[str, int]
    distinct: int
    are_numbers: bool
    are_whole: bool
    decimal: str
    are_structures: bool
    mean_words: float
    p99_words: float


@dataclass(frozen=True, slots=True)
class TableProfile:
    """A table.

    Attributes:
        files: The names of its files, sorted.
        in_folder: Whether the source is a folder.
        rows: How many rows were read.
        is_whole: Whether these are all.
        columns: Its columns, in their order.
        sample: The first rows, for what is to be looked at in more than one column.
    """

    files: tuple[str, ...]
    in_folder: bool
    rows: int
    is_whole: bool
    columns: tuple[ColumnProfile, ...]
    sample: tuple[Mapping[str, Any], ...]

    def find(self, name: str) -> ColumnProfile | None:
        """Return a column by its name; None: there is none."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(slots=True)
class _Counting:
    rows: int = 0
    are_numbers: bool = True
    are_whole: bool = True
    are_comma_numbers: bool = True
    are_structures: bool = False
    words: "array[float]" = field(default_factory=lambda: array("d"))
    values: Counter[str] = field(default_factory=Counter)

    def add(self, value: object) -> None:
        if is_missing(value):
            return
        self.rows += 1
        self.are_structures |= isinstance(value, list | dict)
        number = _read_number(value)
        self.are_numbers &= number is not None
        self.are_comma_numbers &= isinstance(value, str) and _read_comma_number(value) is not None
        self.are_whole &= number is not None and number.is_integer()
        text = str(value).strip()
        # As long texts are only counted, what tells them apart is enough.
        key = (
            text
            if len(text) <= _LONGEST_KEY
            else f"{text[:_LONGEST_KEY]}… {zlib.crc32(text.encode('utf-8', 'replace')):08x}"
        )
        self.words.append(max(len(text.split()), len(text) / _CHARACTERS_PER_WORD / 1.5))
        if key in self.values or len(self.values) < _MOST_VALUES:
            self.values[key] += 1


def profile_table(source: Path) -> TableProfile:
    """Read a file or a folder of files and count what its columns hold.

    Args:
        source: CSV, TSV, JSON lines or Parquet, each but the last also with ``.gz``; or a folder of them.

    Raises:
        InvalidDataError: It is not there, or has rows that cannot be read; the first are listed.
    """
    local = list_local_files(str(source))
    log = FaultLog(str(source))
    columns: dict[str, _Counting] = {}
    sample: list[Mapping[str, Any]] = []
    rows, is_whole = 0, True
    for name in local.names:
        path = local.folder / name
        for _, values in read_records(path, name, _list_columns(path), log):
            if rows >= MOST_ROWS:
                is_whole = False
                break
            rows += 1
            if len(sample) < _MOST_VALUES:
                sample.append(values)
            for column, value in values.items():
                columns.setdefault(column, _Counting()).add(value)
    log.raise_if_any()
    if not rows:
        raise InvalidDataError(str(source), [Fault("rows", "there are none")], todo="give a table with rows")
    return TableProfile(
        files=local.names,
        in_folder=local.in_folder,
        rows=rows,
        is_whole=is_whole,
        columns=tuple(_conclude(name, counted) for name, counted in columns.items()),
        sample=tuple(sample),
    )


def _list_columns(path: Path) -> Sequence[str]:
    """Return the columns of a Parquet file, of which only those that are named are read; else none."""
    if find_format(path.name) != "parquet":
        return ()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        # Reading the rows says what is wrong with the file.
        return ()


def _conclude(name: str, counted: _Counting) -> ColumnProfile:
    has_commas = counted.rows > 0 and counted.are_comma_numbers and not counted.are_numbers
    return ColumnProfile(
        name=name,
        rows=counted.rows,
        values=counted.values,
        distinct=len(counted.values),
        are_numbers=(counted.are_numbers or has_commas) and counted.rows > 0,
        are_whole=counted.are_whole and counted.rows > 0,
        decimal="," if has_commas else ".",
        are_structures=counted.are_structures,
        mean_words=_compute(np.mean, counted.words),
        p99_words=_compute(lambda words: np.percentile(words, 99), counted.words),
    )


def _compute(function: Any, words: Sequence[float]) -> float:
    return float(function(words)) if words else 0.0


def _read_number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _read_comma_number(text: str) -> float | None:
    return _read_number(text.replace(".", "").replace(",", "."))


def list_values(column: ColumnProfile, most: int) -> Iterable[tuple[str, int]]:
    """Return the most frequent values of a column with their rows."""
    return sorted(column.values.items(), key=lambda item: (-item[1], item[0]))[:most]
