"""How far a step is, for whoever watches."""

import contextlib
import json
from pathlib import Path
from typing import Protocol


class Progress(Protocol):
    """Told how far a step is."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Take note that so much of a step's work is done."""


def ignore_progress(done: int, total: int, note: str = "") -> None:
    """Tell nobody."""


class ProgressFile:
    """Writes how far a step is into a small JSON file that a display polls."""

    def __init__(self, path: Path, step: str) -> None:
        self._path = path
        self._step = step

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Replace the file, so that a reader never sees half of it. A full disk fails no step here."""
        partial = self._path.with_suffix(".partial")
        with contextlib.suppress(OSError):
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps({"step": self._step, "done": done, "total": total, "note": note}))
            partial.replace(self._path)
