"""The limits of a request: its size, its rows, and their texts. Pure checks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorry_components.data.examples import find_text_fault
from lorry_components.task_types import Row
from lorry_registry.errors import UsageError

_MOST_FAULTS = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a request may be.

    Attributes:
        body_bytes: The bytes of its body.
        rows: Its rows.
        characters: The characters of each text.
        seconds: How long its headers, and then its body, may take to arrive.
    """

    body_bytes: int = 8 << 20
    rows: int = 1024
    characters: int = 100_000
    seconds: float = 20.0


def parse_json(body: bytes) -> Any:
    """Return a JSON document.

    Raises:
        UsageError: It is none.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UsageError("the body is not JSON", where="request", todo="send a JSON document") from error


def read_inputs(document: Any, fields: Sequence[str]) -> list[Row]:
    """Return the rows of ``{"inputs": [...]}``: texts, or objects with the fields of a row.

    Raises:
        UsageError: It is another document.
    """
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list) or set(document) != {"inputs"}:
        raise UsageError("is not a list of rows", where="inputs", todo='send {"inputs": [...]}')
    rows: list[Row] = []
    for number, given in enumerate(inputs, start=1):
        row = {"text": given} if isinstance(given, str) else given
        if not isinstance(row, dict) or set(row) != set(fields):
            shown = ", ".join(f'"{name}": "..."' for name in fields)
            raise UsageError(f"row {number} does not fit", where="inputs", todo=f"send {{{shown}}}")
        rows.append({name: row[name] for name in fields})
    return rows


def check_rows(rows: Sequence[Mapping[str, Any]], limits: Limits) -> None:
    """Refuse rows that are too many or too long, or hold what is no text.

    Raises:
        UsageError: It lists the first of them.
    """
    if not 0 < len(rows) <= limits.rows:
        raise UsageError(f"there are {len(rows)} rows", where="inputs", todo=f"send 1 to {limits.rows} rows")
    faults = [
        f"row {number}: {name} {fault}"
        for number, row in enumerate(rows, start=1)
        for name, cell in row.items()
        if (fault := _find_fault(cell, limits))
    ]
    if faults:
        raise UsageError(
            "; ".join(faults[:_MOST_FAULTS]), where="inputs", todo="send a text in each field of a row"
        )


def _find_fault(cell: Any, limits: Limits) -> str:
    if isinstance(cell, str) and len(cell) > limits.characters:
        return f"has {len(cell):,} characters, and {limits.characters:,} are allowed"
    # What a text holds is not repeated in an answer.
    return find_text_fault(cell).partition(":")[0]
