"""How far a step is, for whoever watches."""

import contextlib
import json
from pathlib import Path
from typing import Protocol

from lorry_registry.whole_files import write_whole_text


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
        document = {"step": self._step, "done": done, "total": total, "note": note}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole_text(self._path, json.dumps(document))
