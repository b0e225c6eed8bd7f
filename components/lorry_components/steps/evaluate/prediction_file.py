"""Predictions in a file of JSON lines, read one after another: hundreds of thousands take no memory."""

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from lorry_components.data.read_sequence import ReadSequence
from lorry_components.task_types import Prediction
from lorry_registry.files.atomic_write import whole_file

_FIELD = "prediction"


class StoredPredictions(ReadSequence[Prediction]):
    """The predictions of a file, one a line beside other fields.

    Args:
        path: The file, which stays as it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts = array("Q")
        # By bytes: a text may hold characters that some readers take for the end of a line.
        start = 0
        with path.open("rb") as stream:
            for line in stream:
                self._starts.append(start)
                start += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Prediction]:
        with self._path.open("rb") as stream:
            yield from map(_read_prediction, stream)

    def _read(self, numbers: range) -> list[Prediction]:
        with self._path.open("rb") as stream:
            return [self._read_at(number, stream) for number in numbers]

    def _read_at(self, number: int, stream: BinaryIO) -> Prediction:
        stream.seek(self._starts[number])
        return _read_prediction(stream.readline())


def write_predictions(
    path: Path, beside: Iterable[Mapping[str, Any]], parts: Iterable[Sequence[Prediction]]
) -> StoredPredictions:
    """Write predictions into a file as they come, and return them as they are there.

    Args:
        path: The file, which appears whole.
        beside: What else stands in each line.
        parts: The predictions, some rows after others.

    Raises:
        OSError: It cannot be written.
    """
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as stream:
        for fields, prediction in zip(beside, chain.from_iterable(parts), strict=True):
            stream.write(json.dumps({**fields, _FIELD: prediction}, ensure_ascii=False) + "\n")
    return StoredPredictions(path)


def _read_prediction(line: bytes) -> Prediction:
    prediction: Prediction = json.loads(line)[_FIELD]
    return prediction
