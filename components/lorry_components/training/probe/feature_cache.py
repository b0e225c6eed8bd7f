"""Features of texts on a frozen base, kept so that another recipe on the same data need not compute them.

A file holds the features of one part of the data, under the digest of all that decides them. Before them
stands a digest of name and content, which is compared whenever they are read: what was damaged is as good as
none. A folder that cannot be written makes it slower and never wrong.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorry_registry.files.atomic_write import is_partial, whole_file

_LOGGER = logging.getLogger(__name__)
_DIGEST_BYTES = 32
_BLOCK_BYTES = 1 << 22
DEFAULT_BYTES = 4 << 30
"""How large a cache of features may become."""

Features = NDArray[np.float32]
Fill = Callable[[Features], None]
"""Computes features into an array of the right shape."""


class _NoRoomError(Exception):
    """The folder cannot be written, or has no room."""


class FeatureCache:
    """Features, in a folder that several processes share.

    Args:
        folder: Where they are kept.
        limit: How large it may become, in bytes; the least recently used beyond that are removed.
    """

    def __init__(self, folder: Path, *, limit: int = DEFAULT_BYTES) -> None:
        self._folder = folder
        self._limit = limit

    def fetch(self, name: str, shape: tuple[int, int], fill: Fill) -> Features:
        """Return the features of a name; they are computed unless they are here.

        The array may be read from disk as it is used.

        Args:
            name: The digest of all that decides them, in hex digits.
            shape: Rows and width.
            fill: Computes them.
        """
        known = self.find(name, shape)
        if known is not None:
            return known
        try:
            return self._keep(name, shape, fill)
        except _NoRoomError as error:
            _LOGGER.info("features are not kept in %s: %s", self._folder, error)
        computed: Features = np.empty(shape, dtype=np.float32)
        fill(computed)
        return computed

    def _keep(self, name: str, shape: tuple[int, int], fill: Fill) -> Features:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room(_measure(shape))
        except OSError as error:
            raise _NoRoomError(str(error)) from error
        with whole_file(self._folder / name) as partial:
            kept = _allocate(partial, shape)
            fill(kept)
            kept.flush()
            with partial.open("r+b") as stream:
                stream.write(_digest(name, partial))
        # The mapping outlives the name that it was made under.
        features: Features = kept
        return features

    def find(self, name: str, shape: tuple[int, int]) -> Features | None:
        """Return features that are here and whole, or None."""
        path = self._folder / name
        try:
            if path.stat().st_size != _measure(shape):
                return None
            with path.open("rb") as stream:
                recorded = stream.read(_DIGEST_BYTES)
            if recorded != _digest(name, path):
                return None
            # The least recently used ones are removed first.
            with contextlib.suppress(OSError):
                os.utime(path)
            return np.memmap(path, dtype=np.float32, mode="r", offset=_DIGEST_BYTES, shape=shape)
        except OSError:
            return None

    def _make_room(self, needed: int) -> None:
        used: list[tuple[float, int, Path]] = []
        for path in self._folder.iterdir():
            # Another process may remove it at the same time.
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                # What a killed process left half written is as old as any; one that writes still has it open.
                used.append((0.0 if is_partial(path.name) else stat.st_mtime, stat.st_size, path))
        excess = sum(size for _, size, _ in used) + needed - self._limit
        for _, size, path in sorted(used):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size


def _allocate(path: Path, shape: tuple[int, int]) -> Any:
    """Make the file in its full size: writing to a sparse one would end in a signal on a full disk."""
    size = _measure(shape)
    try:
        with path.open("wb") as stream:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, size)
            else:
                os.ftruncate(stream.fileno(), size)
    except OSError as error:
        raise _NoRoomError(str(error)) from error
    return np.memmap(path, dtype=np.float32, mode="r+", offset=_DIGEST_BYTES, shape=shape)


def _measure(shape: tuple[int, int]) -> int:
    """Return the bytes of a file of features."""
    return _DIGEST_BYTES + 4 * shape[0] * shape[1]


def _digest(name: str, path: Path) -> bytes:
    digest = hashlib.sha256(name.encode("ascii"))
    with path.open("rb") as stream:
        stream.seek(_DIGEST_BYTES)
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.digest()
