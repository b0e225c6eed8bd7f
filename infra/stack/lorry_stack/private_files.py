"""Files that only their owner may read."""

import os
from pathlib import Path

from lorry_registry.files.atomic_write import whole_file


def write_private(path: Path, text: str) -> None:
    """Write a text so that the file appears whole, and is never readable by others, not even for a moment."""
    with whole_file(path) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
