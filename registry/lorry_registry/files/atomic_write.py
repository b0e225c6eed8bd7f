"""Files that appear whole: a reader sees the old content or the new, never half of it.

The content is written under a temporary name in the same folder and renamed into place. A writer that is
killed leaves at most its temporary file behind; :func:`is_partial` recognizes it.
"""

import contextlib
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}\.partial", re.DOTALL)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole, in place of one that may be there.

    Raises:
        OSError: The file cannot be written; what was there before is still there.
    """
    with whole_file(path) as partial:
        partial.write_bytes(content)


def write_whole_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, line ends as given, so that the file appears whole.

    Raises:
        OSError: The file cannot be written; what was there before is still there.
    """
    write_whole(path, text.encode("utf-8"))


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path``; the file that is written there takes its place at the end.

    For writers of other libraries, which want a path and not the content.

    When the block raises, the new file is removed and what was at ``path`` stays.

    Raises:
        OSError: The file cannot be put in its place.
    """
    # A name of its own for each writer: of two at once the last one wins, and neither mixes with the other.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def is_partial(name: str) -> bool:
    """Return whether a file of this name was left by a writer that was killed."""
    return _PARTIAL.fullmatch(name) is not None
