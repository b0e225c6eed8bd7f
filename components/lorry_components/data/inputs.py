"""A table whose rows are to be predicted: its columns by the task's names, and no labels.

It is read once to be checked and again a part at a time, so that none of its rows are kept.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorry_components.data.examples import Gaps, find_text_fault
from lorry_components.data.faults import FaultLog, shorten
from lorry_components.data.layout import find_format
from lorry_components.data.read_sequence import ReadSequence
from lorry_components.data.records import place_row, read_header, read_records
from lorry_components.data.rows import Row
from lorry_components.data.text_tables import Dialect, find_dialect
from lorry_registry.errors import Fault, InvalidDataError
from lorry_registry.tasks.input_specs import Columns

_DEFAULT = Columns()


class InputTable(ReadSequence[Row]):
    """The inputs in a table, in the order of its rows. They are read from the file, best from first to last.

    Args:
        path: The table: JSON lines, CSV, TSV or Parquet, by its ending.
        fields: Field of an input -> column of the table.
        names: The columns of the table's first row.
        length: How many rows it has.
        expected: The columns that the task reads.
    """

    def __init__(
        self,
        path: Path,
        fields: Mapping[str, str],
        names: Sequence[str],
        length: int,
        expected: Collection[str] = (),
    ) -> None:
        self.path = path
        self.fields = fields
        self.names = names
        self._expected = expected
        self._length = length
        self._rows: Iterator[Row] = iter(())
        self._position = length

    @property
    def dialect(self) -> Dialect:
        """How the cells of CSV or TSV are written."""
        return find_dialect(self.path, self.path.name, self._expected)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Row]:
        return map(self._choose, self.read_records())

    def read_records(self) -> Iterator[Mapping[str, Any]]:
        """Yield the rows with all their columns.

        Raises:
            InvalidDataError: The table is not the one that was checked.
        """
        count = 0
        log = FaultLog(str(self.path))
        for _, values in read_records(self.path, self.path.name, (), log, expected=self._expected):
            yield values
            count += 1
        if count != self._length or log.total:
            fault = Fault(self.path.name, f"has {count:,} rows that can be read, and had {self._length:,}")
            raise InvalidDataError(
                str(self.path), [fault], todo="it was changed while it was read: run the command again"
            )

    def _read(self, numbers: range) -> list[Row]:
        start, count = numbers.start, len(numbers)
        if start < self._position or self._position == self._length:
            self._rows, self._position = iter(self), 0
        skipped = start - self._position
        rows = list(itertools.islice(self._rows, skipped, skipped + count))
        self._position = start + count
        return rows

    def _choose(self, values: Mapping[str, Any]) -> Row:
        return {field: values[column] for field, column in self.fields.items()}


def open_table(path: Path, columns: Columns) -> InputTable:
    """Check all rows of a table, and return them to be read from it.

    Args:
        path: A file whose ending stands for a table.
        columns: The task's columns; that of the label need not be there. A table without them that has
            ``text`` (and ``text_pair``) is read by those.

    Raises:
        InvalidDataError: It is not there, lacks columns, or has cells that are no texts; all faults are
            counted, the first are listed.
    """
    wanted = {"text": columns.text} | ({"text_pair": columns.text_pair} if columns.text_pair else {})
    log = FaultLog(str(path), todo=_say_what_is_read(wanted))
    if not path.is_file():
        log.add_file(path.name, "there is no such file")
        log.raise_if_any()
    expected = tuple(wanted.values())
    for column, times in _find_repeated(path, expected):
        log.add_file(path.name, f"has the column {shorten(column)!r} {times} times")
    records = read_records(path, path.name, (), log, expected=expected)
    first = next(records, None)
    fields = wanted if first is None else _choose_fields(wanted, first[1])
    gaps = Gaps(fields)
    length = 0
    for number, values in itertools.chain([first] if first is not None else [], records):
        length += 1
        if gaps.note(number, values):
            continue
        for column in fields.values():
            if fault := find_text_fault(values[column]):
                log.add(place_row(path.name, number), f"column {shorten(column)!r} {fault}")
    gaps.report(path.name, log)
    log.raise_if_any()
    return InputTable(path, fields, tuple(first[1]) if first is not None else (), length, expected)


def _choose_fields(wanted: dict[str, str], values: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns of the task, or those of predictions as JSON, if it lacks one and has these."""
    usual = {field: getattr(_DEFAULT, field) or field for field in wanted}
    is_usual = not all(column in values for column in wanted.values()) and all(
        column in values for column in usual.values()
    )
    return usual if is_usual else wanted


def _find_repeated(path: Path, expected: Collection[str]) -> list[tuple[str, int]]:
    if find_format(path.name) not in ("csv", "tsv"):
        return []
    header = read_header(path, find_dialect(path, path.name, expected))
    return [(column, header.count(column)) for column in dict.fromkeys(header) if header.count(column) > 1]


def _say_what_is_read(fields: Mapping[str, str]) -> str:
    named = " and ".join(f"{shorten(column)!r}" for column in fields.values())
    many = len(fields) > 1
    return (
        f"the task reads the column{'s' if many else ''} {named} and nothing else: "
        "give a file that has " + ("them" if many else "it") + ", with a text in each row"
    )
