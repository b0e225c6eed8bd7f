"""Digests and the canonical form of a document.

Everything that Lorry names by content is named by ``sha256:<64 hex digits>``.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_PREFIX = "sha256:"

DigestFile = Callable[[Path], str]
"""Returns the digest of a file; raises OSError when it cannot be read."""


def canonical_json(document: Any) -> bytes:
    """Return the one byte string that stands for a JSON document.

    Keys sorted, no white space, UTF-8, no NaN or infinity: equal documents have equal bytes.

    Raises:
        ValueError: The document holds a NaN, an infinity or something that is not JSON.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def digest_bytes(content: bytes) -> str:
    """Return ``sha256:<hex>`` of a byte string."""
    return _PREFIX + hashlib.sha256(content).hexdigest()


def digest_document(document: Any) -> str:
    """Return ``sha256:<hex>`` of the canonical form of a JSON document."""
    return digest_bytes(canonical_json(document))


def digest_file(path: Path) -> str:
    """Return ``sha256:<hex>`` of a file, which is read in small pieces.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        return _PREFIX + hashlib.file_digest(stream, "sha256").hexdigest()


def digest_files(folder: Path, names: Iterable[str], *, digest: DigestFile = digest_file) -> str:
    """Return one digest over several files of a folder: their names and contents, in sorted order.

    Args:
        folder: Where the files are.
        names: Their names, relative to the folder.
        digest: Computes the digest of each file, or looks it up.

    Raises:
        OSError: A file cannot be read.
    """
    return digest_document({name: digest(folder / name) for name in sorted(names)})


def shorten_digest(digest: str, length: int = 12) -> str:
    """Return the first hex digits of a digest, for people."""
    return digest.removeprefix(_PREFIX)[:length]
