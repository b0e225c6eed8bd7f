"""The rows of a Parquet file, a few bytes of which may stand for very many: what is unpacked is counted.

A text that many rows share is stored once, and so it is read. It becomes a text of each row only once it is
known how many bytes that makes.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_components.data.faults import FaultLog, shorten
from lorry_components.data.rows import MAX_FILE_BYTES, TOO_LARGE, Record

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROW_BYTES = 64 << 20
_BATCH_ROWS, _BATCH_BYTES = 8192, 256 << 20
# Of a number, or of where a text is.
_VALUE_BYTES = 8
# Encodings of texts that Arrow cannot read as a dictionary. In the first a text is what it has more than the
# one before it, so that each may be as long as all of them take.
_GROWING = "DELTA_BYTE_ARRAY"
_NO_DICTIONARY = {_GROWING, "DELTA_LENGTH_BYTE_ARRAY"}


def read_parquet(path: Path, name: str, wanted: Sequence[str], log: FaultLog) -> Iterator[Record]:
    """Yield the rows of a Parquet file, in memory bounded by :data:`MAX_ROW_BYTES`.

    Args:
        path: The file.
        name: What faults call it.
        wanted: The columns that are needed; all are read if one is missing, or none is given.
        log: Where faults go.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        if metadata.num_rows == 0:
            log.add_file(name, "holds no rows")
        columns = metadata.schema.to_arrow_schema().names
        # All columns when one is missing, so that the fault can list which there are.
        needed = [column for column in wanted if column in columns]
        chosen = needed if wanted and len(needed) == len(wanted) else columns
        chunks = [group.column(index) for group in groups for index in range(metadata.num_columns)]
        chunks = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in chosen]
        if sum(group.total_byte_size for group in groups) > MAX_FILE_BYTES or _are_many(chunks):
            log.add_file(name, *TOO_LARGE)
            return
        batch_rows = _choose_batch_rows(chunks)
        with pq.ParquetFile(path, metadata=metadata, read_dictionary=_list_packed(chunks)) as table:
            yield from _read_batches(table.iter_batches(batch_rows, columns=list(chosen)), name, log)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        log.add_file(name, f"is not Parquet or is damaged: {shorten(reason, 120)}")


def _are_many(chunks: Sequence[Any]) -> bool:
    """Whether the lists in a file have more values than a file may have: a single row may have them all."""
    values: int = sum(chunk.num_values for chunk in chunks if "." in chunk.path_in_schema)
    return values * _VALUE_BYTES > MAX_FILE_BYTES


def _list_packed(chunks: Sequence[Any]) -> list[str]:
    """Return the columns of texts that can be read as a dictionary."""
    excluded = {chunk.path_in_schema for chunk in chunks if _NO_DICTIONARY.intersection(chunk.encodings)}
    texts = {chunk.path_in_schema for chunk in chunks if chunk.physical_type == "BYTE_ARRAY"}
    return sorted(texts - excluded)


def _choose_batch_rows(chunks: Sequence[Any]) -> int:
    sizes: list[int] = [chunk.total_uncompressed_size for chunk in chunks if _GROWING in chunk.encodings]
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max([1, *sizes])))


def _read_batches(batches: Iterator["pa.RecordBatch"], name: str, log: FaultLog) -> Iterator[Record]:
    number = unpacked = 0
    for batch in batches:
        size = _measure_batch(batch)
        unpacked += size
        if unpacked > MAX_FILE_BYTES:
            log.add_file(name, *TOO_LARGE)
            return
        for part, is_small in _cut(batch, size):
            if not is_small:
                number += 1
                log.add(f"{name} row {number}", f"is over {MAX_ROW_BYTES >> 20} MiB large once unpacked")
                continue
            try:
                cells = [_unpack(column) for column in part.columns]
            except UnicodeDecodeError:
                log.add_file(
                    name, f"holds text that is not UTF-8 in rows {number + 1} to {number + len(part)}"
                )
                return
            for values in zip(*cells, strict=True):
                number += 1
                yield number, dict(zip(part.schema.names, values, strict=True))


def _cut(batch: "pa.RecordBatch", size: int) -> Iterator[tuple["pa.RecordBatch", bool]]:
    """Yield the rows of a batch in parts that can be unpacked at once; a row that is too large alone."""
    if len(batch) <= 1 or size <= MAX_ROW_BYTES:
        yield batch, size <= MAX_ROW_BYTES
        return
    half = len(batch) // 2
    for part in (batch.slice(0, half), batch.slice(half)):
        yield from _cut(part, _measure_batch(part))


def _measure_batch(batch: "pa.RecordBatch") -> int:
    return sum(map(_measure, batch.columns))


def _measure(array: Any) -> int:
    """Return how many bytes the values of an array take, each counted as often as it stands there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    size = _VALUE_BYTES * len(array)
    if pa.types.is_dictionary(array.type) and _is_text(array.type.value_type):
        lengths = pc.binary_length(array.dictionary).take(array.indices)
    elif _is_text(array.type):
        lengths = pc.binary_length(array)
    else:
        return size + sum(map(_measure, _list_inner(array)))
    return size + (pc.sum(lengths).as_py() or 0)


def _list_inner(array: Any) -> list[Any]:
    """Return the arrays that an array of another type is made of."""
    import pyarrow as pa

    if isinstance(array, pa.ExtensionArray):
        return [array.storage]
    if pa.types.is_map(array.type):
        # Of a part of an array the offsets are those of the part, the values those of the whole.
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return [array.values.slice(first, last - first)]
    if pa.types.is_struct(array.type):
        return list(array.flatten())
    return [array.flatten()] if pa.types.is_nested(array.type) else []


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in tests)


def _unpack(column: Any) -> list[Any]:
    import pyarrow as pa

    values: list[Any] = (
        column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
    ).to_pylist()
    return values
