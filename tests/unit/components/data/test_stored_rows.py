"""Rows as they are stored: a sequence like a list of them, and far smaller."""

import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorry_components.data.stored_rows import read_table

ROWS = [{"text": f"text {number}", "text_pair": f"pair {number}"} for number in range(3000)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    labelled = [{**row, "label": "ab"[number % 2]} for number, row in enumerate(ROWS)]
    pq.write_table(pa.Table.from_pylist(labelled), tmp_path / "test.parquet")
    return tmp_path / "test.parquet"


def test_rows_are_those_of_the_table(path: Path) -> None:
    rows, labels = read_table(path)
    assert len(rows) == len(labels) == 3000
    assert list(rows) == ROWS
    assert (rows[0], rows[-1], rows[1500]) == (ROWS[0], ROWS[-1], ROWS[1500])
    assert rows[10:2000] == ROWS[10:2000]
    assert rows[2990:9000] == ROWS[2990:]
    assert rows[5:5] == rows[9000:] == []
    assert rows[20:2:-3] == ROWS[20:2:-3]
    with pytest.raises(IndexError):
        rows[3000]


def test_a_row_that_nobody_looks_at_is_no_object(path: Path) -> None:
    tracemalloc.start()
    try:
        rows, labels = read_table(path)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(set(map(id, labels))) == 2
    # A dictionary alone takes 184 bytes. A hundred thousand are for what is imported on the way.
    assert held < 60 * len(rows) + 100_000
