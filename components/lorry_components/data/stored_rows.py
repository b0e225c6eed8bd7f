"""The rows of a table as they are stored: a hundred bytes a row take about that much memory."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lorry_components.data.read_sequence import ReadSequence
from lorry_components.data.rows import Label

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 1024


class StoredRows(ReadSequence[dict[str, str]]):
    """The inputs of a table's rows. Each becomes an object when it is asked for.

    Args:
        table: The table, with columns of texts alone.
    """

    def __init__(self, table: "pa.Table") -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[dict[str, str]]:
        for start in range(0, len(self), _ROWS_AT_ONCE):
            yield from self[start : start + _ROWS_AT_ONCE]

    def _read(self, numbers: range) -> list[dict[str, str]]:
        rows: list[dict[str, str]] = self._table.slice(numbers.start, len(numbers)).to_pylist()
        return rows


def read_table(path: Path) -> tuple[StoredRows, list[Label]]:
    """Return the inputs and the labels of a Parquet file that the preparation of data wrote.

    Raises:
        OSError: It cannot be read.
        KeyError: It has no labels.
        ValueError: It is no such file: pyarrow's own errors are among these.
    """
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read()
    labels: list[Label] = table.column("label").to_pylist()
    rows = StoredRows(table.drop_columns(["label"]))
    # There are few classes, and many rows of each.
    return rows, [sys.intern(label) if isinstance(label, str) else label for label in labels]
