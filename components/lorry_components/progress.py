"""Progress of a step."""

import contextlib
import json
from pathlib import Path
from typing import Protocol

from lorry_registry.files.atomic_write import write_whole_text

CONTINUING = "continuing from"
"""What the note of a training that goes on from a checkpoint begins with."""


class Progress(Protocol):
    """Called with how far a step is."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Take note that so much of a step's work is done."""


def ignore_progress(done: int, total: int, note: str = "") -> None:
    """Report nothing."""


def describe_continuation(step: int, total: int) -> str:
    """Return what a note says of a training that goes on from a checkpoint; empty: it starts."""
    return f"{CONTINUING} step {step} of {total}" if step else ""


def format_seconds(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class ProgressFile:
    """Writes how far a step is into a small JSON file that a display polls."""

    def __init__(self, path: Path, step: str) -> None:
        self._path = path
        self._step = step

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Replace the file, so that a reader never sees half of it. A full disk fails no step here."""
        document = {"step": self._step, "done": done, "total": total, "note": note}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole_text(self._path, json.dumps(document))
