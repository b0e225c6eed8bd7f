"""Which rows a training saw, and which rows of another table it did not."""

from collections.abc import Sequence
from pathlib import Path

from lorry_components.data.examples import Example, Key
from lorry_components.data.layout import PARTS
from lorry_components.data.rows import DataForm, Row
from lorry_registry.trained_rows import TrainedRows, Unit
from lorry_registry.whole_files import write_whole

SEEN_ROWS_NAME = "trained_rows.bin"
"""The file beside a candidate."""


def collect_seen_rows(examples: Sequence[Example], form: DataForm, *, salt: str) -> TrainedRows:
    """Return what recognises rows later on.

    Where several rows ask about one context, the context is recognised: who was trained on one question
    about it knows it. With fewer than three contexts the questions are, for then one context is in all parts.

    Args:
        examples: The rows that the training saw.
        form: How rows are divided.
        salt: The digest of the data.
    """
    contexts = {key[1] for key in (example.key for example in examples)}
    unit: Unit = "context" if form.by_context and len(contexts) >= len(PARTS) else "row"
    return TrainedRows.collect((_choose(example.key, unit) for example in examples), unit=unit, salt=salt)


def find_unseen_rows(seen: TrainedRows, rows: Sequence[Row]) -> list[int]:
    """Return the places of the rows that the training surely did not see."""
    return seen.find_unseen(_choose(Example(dict(row), "").key, seen.unit) for row in rows)


def save_seen_rows(seen: TrainedRows, folder: Path) -> None:
    """Write them beside a candidate."""
    write_whole(folder / SEEN_ROWS_NAME, seen.serialize())


def _choose(key: Key, unit: Unit) -> Key:
    return ("", key[1]) if unit == "context" else key
