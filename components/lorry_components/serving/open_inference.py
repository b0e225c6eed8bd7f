"""The documents of the Open Inference Protocol, version 2: tensors in, tensors out.

https://github.com/kserve/open-inference-protocol. A task reads tensors ``text`` and, for pairs, ``text_pair``
of type BYTES, with one element a row, as JSON or in the protocol's binary form. Answers are JSON.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from lorry_components.serving.catalogue import ServedVersion
from lorry_components.task_types import Prediction, Row
from lorry_registry.errors import UsageError

_DATA_TYPES = {"string": "BYTES", "double": "FP64", "long": "INT64"}
_LENGTH = struct.Struct("<I")
_WHERE = "inputs"


def describe_version(served: ServedVersion) -> dict[str, Any]:
    """Return the metadata of a model."""
    outputs = []
    for name, kind in served.loaded.task_type.prediction_fields.items():
        if kind != "map":
            outputs.append({"name": name, "datatype": _DATA_TYPES[kind], "shape": [-1]})
            continue
        classes = len(served.loaded.manifest.labels or ())
        outputs.append({"name": name, "datatype": "FP64", "shape": [-1, classes]})
        outputs.append({"name": "classes", "datatype": "BYTES", "shape": [classes]})
    return {
        "name": served.task,
        "versions": [str(served.version)],
        "platform": "lorry",
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in served.fields],
        "outputs": outputs,
    }


def read_request(document: Any, binary: bytes, fields: Sequence[str]) -> list[Row]:
    """Return the rows of an inference request.

    Args:
        document: The request.
        binary: What follows it in the body.
        fields: The tensors that the task reads.

    Raises:
        UsageError: It is no such request, or not for this task.
    """
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
        raise UsageError(
            "is not a list of tensors", where=_WHERE, todo=f"send the tensors {', '.join(fields)}"
        )
    columns: dict[str, list[Any]] = {}
    for tensor in document["inputs"]:
        if not isinstance(tensor, dict) or tensor.get("datatype") != "BYTES":
            raise UsageError("a tensor is not of datatype BYTES", where=_WHERE, todo="send texts as BYTES")
        column, binary = _read_tensor(tensor, binary)
        columns[str(tensor.get("name"))] = column
    if binary:
        raise UsageError(
            f"{len(binary)} bytes follow the last tensor", where=_WHERE, todo="correct binary_data_size"
        )
    if set(columns) != set(fields) or len({len(column) for column in columns.values()}) != 1:
        raise UsageError(
            f"the tensors are {', '.join(sorted(columns)) or 'none'}",
            where=_WHERE,
            todo=f"send {' and '.join(fields)}, with one element a row",
        )
    return [
        dict(zip(fields, cells, strict=True))
        for cells in zip(*(columns[name] for name in fields), strict=True)
    ]


def _read_tensor(tensor: Mapping[str, Any], binary: bytes) -> tuple[list[Any], bytes]:
    """Return the elements of a tensor, and what is left of the binary part of the body."""
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        data = tensor.get("data")
        if not isinstance(data, list):
            raise UsageError("a tensor has no data", where=_WHERE, todo="send data, a list of texts")
        # Shape [n, 1] may be sent as nested lists.
        return [cell[0] if isinstance(cell, list) and len(cell) == 1 else cell for cell in data], binary
    if not isinstance(size, int) or not 0 <= size <= len(binary):
        raise UsageError("binary_data_size is not within the body", where=_WHERE, todo="correct it")
    return _read_texts(binary[:size]), binary[size:]


def _read_texts(data: bytes) -> list[str]:
    texts, place = [], 0
    while place < len(data):
        if place + _LENGTH.size > len(data):
            raise UsageError("a binary tensor ends within a length", where=_WHERE, todo="send it whole")
        (length,) = _LENGTH.unpack_from(data, place)
        start, place = place + _LENGTH.size, place + _LENGTH.size + length
        if place > len(data):
            raise UsageError("a binary tensor ends within a text", where=_WHERE, todo="send it whole")
        try:
            texts.append(data[start:place].decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UsageError("a text is not UTF-8", where=_WHERE, todo="send texts in UTF-8") from error
    return texts


def write_response(
    served: ServedVersion, predictions: Sequence[Prediction], request_id: str | None
) -> dict[str, Any]:
    """Return an inference response."""
    outputs: list[dict[str, Any]] = []
    for name, kind in served.loaded.task_type.prediction_fields.items():
        cells = [prediction[name] for prediction in predictions]
        if kind != "map":
            written = [_write_cell(cell) for cell in cells]
            outputs.append(_write_tensor(name, _DATA_TYPES[kind], [len(cells)], written))
            continue
        classes = list(served.loaded.manifest.labels or ())
        shares = [cell[label] for cell in cells for label in classes]
        outputs.append(_write_tensor(name, "FP64", [len(cells), len(classes)], shares))
        outputs.append(_write_tensor("classes", "BYTES", [len(classes)], classes))
    return {
        "model_name": served.task,
        "model_version": str(served.version),
        **({"id": request_id} if request_id is not None else {}),
        "parameters": {"adapter": served.adapter_id},
        "outputs": outputs,
    }


def _write_cell(cell: Any) -> Any:
    """Return an element of a tensor: a list, such as the candidates of a probe, is a JSON text in it."""
    return json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | tuple) else cell


def _write_tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}
