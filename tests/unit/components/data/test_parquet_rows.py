"""Few bytes of Parquet may stand for very many; whatever is within bounds is read as pyarrow reads it."""

import datetime
import decimal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorry_components.data.faults import FaultLog
from lorry_components.data.parquet_rows import read_parquet
from lorry_registry.errors import InvalidDataError

MIB = 1 << 20


def read(path: Path, wanted: Sequence[str] = ()) -> list[dict[str, Any]]:
    log = FaultLog("source")
    rows = [values for _, values in read_parquet(path, path.name, wanted, log)]
    log.raise_if_any()
    return rows


def repeat(value: Any, kind: pa.DataType, times: int) -> pa.Array:
    """Return an array of one value, which is stored once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), pa.array([value], kind))


def test_all_types_are_read_as_pyarrow_reads_them(tmp_path: Path) -> None:
    texts = ["x", "y"]
    columns = {
        "struct": [{"text": texts, "start": [1, 2]}, None],
        "list": [["p"], []],
        "lists": [[["a", "b"], ["c"]], None],
        "map": pa.array([[("k", "v")], [("l", None)]], pa.map_(pa.string(), pa.string())),
        "pair": pa.array([[1.0, 2.0]] * 2, pa.list_(pa.float64(), 2)),
        "a.b": texts,
        "bytes": pa.array([b"x", None]),
        "fixed": pa.array([b"abc"] * 2, pa.binary(3)),
        "large": pa.array(texts, pa.large_string()),
        "view": pa.array(texts, pa.string_view()),
        "category": pa.array(texts).dictionary_encode(),
        "numbers": pa.array([5, 6]).dictionary_encode(),
        "json": pa.array(["{}", "[]"], pa.json_()),
        "uuid": pa.array([b"0" * 16] * 2, pa.uuid()),
        "time": [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)] * 2,
        "decimal": [decimal.Decimal("1.5")] * 2,
        "null": pa.nulls(2),
    }
    table = pa.concat_tables([pa.table(columns)] * 50)
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == pq.read_table(tmp_path / "a.parquet").to_pylist()


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "PLAIN"])
def test_texts_in_other_encodings(tmp_path: Path, encoding: str) -> None:
    table = pa.table({"text": [f"text {number}" for number in range(500)]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, use_dictionary=False, column_encoding={"text": encoding})
    assert read(path, ["text"]) == table.to_pylist()


def test_a_text_that_is_stored_once_counts_as_often_as_it_stands_there(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": repeat("x" * MIB, pa.string(), 4096)}), path, compression="zstd")
    assert path.stat().st_size < 2000
    with pytest.raises(InvalidDataError, match="is over 1 GiB once unpacked"):
        read(path, ["text"])


def test_so_does_one_in_a_list(tmp_path: Path) -> None:
    words = repeat("x" * MIB, pa.string(), 4096)
    lists = pa.ListArray.from_arrays(pa.array(range(0, 4097, 2), pa.int32()), words)
    pq.write_table(pa.table({"answers": lists}), tmp_path / "a.parquet")
    with pytest.raises(InvalidDataError, match="is over 1 GiB once unpacked"):
        read(tmp_path / "a.parquet", ["answers"])


def test_one_list_of_very_many_numbers_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"numbers": [[0] * 200_000]}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 2000
    monkeypatch.setattr("lorry_components.data.parquet_rows.MAX_FILE_BYTES", MIB)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", None)
    with pytest.raises(InvalidDataError, match="is over 1 GiB once unpacked"):
        read(tmp_path / "a.parquet")


def test_rows_are_unpacked_a_few_at_a_time_and_a_large_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorry_components.data.parquet_rows.MAX_ROW_BYTES", MIB)
    texts = [*["x" * 300_000] * 20, "y" * 2 * MIB, "z"]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    log = FaultLog("source")
    rows = list(read_parquet(tmp_path / "a.parquet", "a.parquet", ["text"], log))
    assert rows == [(number, {"text": text}) for number, text in enumerate(texts, 1) if len(text) < MIB]
    with pytest.raises(InvalidDataError, match=r"a\.parquet row 21: is over 1 MiB large once unpacked"):
        log.raise_if_any()
