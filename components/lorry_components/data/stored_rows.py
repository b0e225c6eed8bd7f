"""The rows of a table as they are stored: a hundred bytes a row take about that much memory."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from lorry_components.data.rows import Label

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 1024


class StoredRows(Sequence[dict[str, str]]):
    """The inputs of a table's rows. Each becomes an object when it is asked for.

    Args:
        table: The table, with columns of texts alone.
    """

    def __init__(self, table: "pa.Table") -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, index: int) -> dict[str, str]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, str]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, str] | list[dict[str, str]]:
        if isinstance(index, int):
            return self[range(len(self))[index] : range(len(self))[index] + 1][0]
        start, stop, step = index.indices(len(self))
        if step != 1:
            return [self[number] for number in range(start, stop, step)]
        rows: list[dict[str, str]] = self._table.slice(start, max(0, stop - start)).to_pylist()
        return rows

    def __iter__(self) -> Iterator[dict[str, str]]:
        for start in range(0, len(self), _ROWS_AT_ONCE):
            yield from self[start : start + _ROWS_AT_ONCE]


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
