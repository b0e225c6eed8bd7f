"""Small objects of S3, kept so that an unchanged one is downloaded once, and not for every training.

An object is kept under the digest of all that says which one it is and which content it had: endpoint,
bucket, key, tag and size. Before its content stands a digest of both, so that a file that was damaged, or
that stands in the place of another, is as good as none. A folder that cannot be written makes it slower and
never wrong.
"""

import contextlib
import hashlib
import logging
import os
import threading
from pathlib import Path

from lorry_registry.files.atomic_write import is_partial, write_whole
from lorry_registry.files.digests import digest_document

_LOGGER = logging.getLogger(__name__)
_DIGEST_BYTES = 32


class ObjectCache:
    """Contents of objects, in a folder that several processes and threads share.

    Args:
        folder: Where they are kept.
        limit: How large it may become, in bytes; the least recently used beyond that are removed.
    """

    def __init__(self, folder: Path, *, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._lock = threading.Lock()
        self._is_pruned = False

    def find(self, *identity: str | int) -> bytes | None:
        """Return the content of an object, or None if it is not kept."""
        path = self._locate(identity)
        try:
            kept = path.read_bytes()
        except OSError:
            return None
        digest, content = kept[:_DIGEST_BYTES], kept[_DIGEST_BYTES:]
        if _digest(path, content) != digest:
            return None
        # The least recently used ones are removed first.
        with contextlib.suppress(OSError):
            os.utime(path)
        return content

    def keep(self, content: bytes, *identity: str | int) -> None:
        """Keep the content of an object."""
        path = self._locate(identity)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._prune()
            write_whole(path, _digest(path, content) + content)
        except OSError as error:
            _LOGGER.info("an object is not kept in %s: %s", self._folder, error)

    def _locate(self, identity: tuple[str | int, ...]) -> Path:
        return self._folder / digest_document(list(identity)).partition(":")[2]

    def _prune(self) -> None:
        """Make room, once a process: what goes beyond the limit is bounded by what one process downloads."""
        with self._lock:
            if self._is_pruned:
                return
            self._is_pruned = True
        used: list[tuple[float, int, Path]] = []
        for path in self._folder.iterdir():
            # Another process may remove it at the same time.
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                # What a killed process left half written is as old as any, and goes first.
                used.append((0.0 if is_partial(path.name) else stat.st_mtime, stat.st_size, path))
        excess = sum(size for _, size, _ in used) - self._limit
        for _, size, path in sorted(used):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size


def _digest(path: Path, content: bytes) -> bytes:
    return hashlib.sha256(path.name.encode("ascii") + content).digest()
