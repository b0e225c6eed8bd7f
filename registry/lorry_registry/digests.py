"""Digests and the canonical form of a document.

Everything that Lorry names by content is named by ``sha256:<64 hex digits>``.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_PREFIX = "sha256:"
_CHUNK_BYTES = 1 << 20


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
    """Return ``sha256:<hex>`` of a file, read in chunks of one MiB.

    Raises:
        OSError: The file cannot be read.
    """
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            hasher.update(chunk)
    return _PREFIX + hasher.hexdigest()


def digest_files(folder: Path, names: Iterable[str]) -> str:
    """Return one digest over several files of a folder: their names and contents, in sorted order.

    Raises:
        OSError: A file cannot be read.
    """
    return digest_document({name: digest_file(folder / name) for name in sorted(names)})


def shorten_digest(digest: str, length: int = 12) -> str:
    """Return the first hex digits of a digest, for people."""
    return digest.removeprefix(_PREFIX)[:length]
