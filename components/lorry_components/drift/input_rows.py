"""New inputs: rows with a task's columns, of which only the label may be missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorry_components.data.faults import FaultLog
from lorry_components.data.records import place_row, read_records
from lorry_components.data.rows import Label, Row
from lorry_components.data.sources.local import list_local_files
from lorry_components.task_types import TaskType
from lorry_registry.errors import Fault, InvalidDataError
from lorry_registry.files.digests import digest_document, digest_file
from lorry_registry.tasks.input_specs import Columns

_LEAST_ROWS = 20
_TODO = "give rows with the task's columns; the label may be missing"


@dataclass(frozen=True, slots=True)
class InputRows:
    """New inputs.

    Attributes:
        rows: The inputs.
        labels: Their labels; none where not every row has a label that the task type reads.
        digest: Of the files they are in.
    """

    rows: Sequence[Row]
    labels: Sequence[Label]
    digest: str


def read_inputs(path: Path, columns: Columns, task_type: TaskType) -> InputRows:
    """Read new inputs from a file or a folder of files.

    Args:
        path: CSV, TSV, JSON lines or Parquet.
        columns: The task's columns.
        task_type: What reads the labels, where there are any.

    Raises:
        InvalidDataError: It is not there, lacks texts, or has too few rows; all faults are listed.
    """
    local = list_local_files(str(path))
    log = FaultLog(str(path))
    texts = {"text": columns.text, **({"text_pair": columns.text_pair} if columns.text_pair else {})}
    rows: list[Row] = []
    labels: list[Label] = []
    wanted = [*texts.values(), columns.label]
    for name in local.names:
        for number, values in read_records(local.folder / name, name, wanted, log):
            row = {field: values.get(column) for field, column in texts.items()}
            missing = [texts[field] for field, text in row.items() if not isinstance(text, str)]
            if missing:
                log.add(place_row(name, number), f"has no text in {', '.join(map(repr, missing))}")
                continue
            rows.append({field: str(text) for field, text in row.items()})
            labels.extend(_read_label(values.get(columns.label), task_type))
    log.raise_if_any()
    if len(rows) < _LEAST_ROWS:
        fault = Fault("rows", f"there are {len(rows)}, and fewer than {_LEAST_ROWS} tell nothing")
        raise InvalidDataError(str(path), [fault], todo=_TODO)
    digest = digest_document({name: digest_file(local.folder / name) for name in local.names})
    return InputRows(rows, labels if len(labels) == len(rows) else (), digest)


def _read_label(raw: Any, task_type: TaskType) -> list[Label]:
    """Return a label, or nothing where there is none."""
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        return []
    try:
        return [task_type.parse_label(raw)]
    except ValueError:
        return []
