"""Files that appear whole or not at all."""

import uuid
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name in its folder, then rename it into place.

    Whoever reads the path sees its former content or all of the new one, even if this process is killed.

    Raises:
        OSError: The file cannot be written. Nothing is left behind.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_whole_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, as :func:`write_whole` writes bytes.

    Raises:
        OSError: The file cannot be written. Nothing is left behind.
    """
    write_whole(path, text.encode("utf-8"))
