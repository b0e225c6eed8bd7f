"""Digests of files, kept so that an unchanged file is hashed once and not by every process that needs it.

A base of gigabytes serves many tasks, and each of their steps asks for its fingerprint. The answer is kept in
a folder, one small file for each file that was hashed, and is valid as long as the size, the times and the
inode stay the same. Changing a file and setting its modification time back is noticed all the same, since no
program can set the time of the last change.

Adapters are not looked up here: verifying one means reading every byte of it, each time.
"""

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from lorry_registry.files.atomic_write import write_whole
from lorry_registry.files.digests import (
    DigestFile,
    canonical_json,
    digest_bytes,
    digest_document,
    digest_file,
)
from lorry_registry.files.file_locks import hold_lock

# Entries take some 400 bytes each.
_MOST_ENTRIES = 10_000
# A change so soon before hashing may share its time stamp with one after it, where clocks are coarse.
_SETTLED_NS = 2_000_000_000
# No entry takes this long to write, so what is older was left by a process that was killed.
_LEFTOVER_SECONDS = 3600
_LOGGER = logging.getLogger(__name__)


class _Stamp(BaseModel):
    """What shows that a file is still the one that was hashed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def read(cls, path: Path) -> Self:
        stat = path.stat()
        return cls(size=stat.st_size, mtime_ns=stat.st_mtime_ns, ctime_ns=stat.st_ctime_ns, inode=stat.st_ino)

    @property
    def is_settled(self) -> bool:
        """Whether any later change to the file will show in its stamp."""
        return time.time_ns() - self.ctime_ns > _SETTLED_NS


class _Entry(BaseModel):
    """One file's digest."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    path: str
    stamp: _Stamp
    digest: str
    # Of all the above: a damaged entry is as good as none.
    check: str

    @classmethod
    def build(cls, path: Path, stamp: _Stamp, digest: str) -> Self:
        return cls(path=str(path), stamp=stamp, digest=digest, check=_compute_check(path, stamp, digest))

    def is_valid(self, path: Path, stamp: _Stamp) -> bool:
        """Return whether this is the digest of a file as it is now."""
        is_intact = self.check == _compute_check(Path(self.path), self.stamp, self.digest)
        return is_intact and self.path == str(path) and self.stamp == stamp


class DigestCache:
    """Digests of files, in a folder that several processes share.

    A folder that cannot be written makes it slower and never wrong: files are then hashed each time.

    Args:
        folder: Where digests are kept.
        limit: How many; the least recently used ones beyond that are removed.
        hash_file: Computes a digest.
    """

    def __init__(
        self, folder: Path, *, limit: int = _MOST_ENTRIES, hash_file: DigestFile = digest_file
    ) -> None:
        self._folder = folder
        self._limit = limit
        self._hash_file = hash_file
        self._is_pruned = False

    def digest_file(self, path: Path) -> str:
        """Return ``sha256:<hex>`` of a file, hashing it only if it changed since it was last hashed.

        Processes that ask for the same file at the same time wait for the one that hashes it.

        Raises:
            OSError: The file cannot be read.
        """
        path = path.absolute()
        name = digest_bytes(os.fsencode(path)).partition(":")[2]
        entry = self._folder / f"{name}.json"
        known = _look_up(entry, path)
        if known is not None:
            return known
        with contextlib.ExitStack() as stack:
            try:
                # Few locks for many entries: they are never removed, and seldom is one waited for in vain.
                locks = self._folder / "locks"
                locks.mkdir(parents=True, exist_ok=True)
                stack.enter_context(hold_lock(locks / name[:2]))
            except OSError as error:
                _LOGGER.info("the digest of %s is not kept: %s", path, error)
                return self._hash_file(path)
            return _look_up(entry, path) or self._hash_and_keep(entry, path)

    def _hash_and_keep(self, entry: Path, path: Path) -> str:
        before = _Stamp.read(path)
        is_settled = before.is_settled
        digest = self._hash_file(path)
        if is_settled and _Stamp.read(path) == before:
            document = _Entry.build(path, before, digest).model_dump(mode="json")
            try:
                self._prune()
                write_whole(entry, canonical_json(document))
            except OSError as error:
                _LOGGER.info("the digest of %s is not kept: %s", path, error)
        return digest

    def _prune(self) -> None:
        """Make room for new entries, once a process: it is bounded by what one process hashes."""
        if self._is_pruned:
            return
        self._is_pruned = True
        now = time.time()
        used: list[tuple[float, Path]] = []
        for path in self._folder.iterdir():
            # Another process may remove it at the same time.
            with contextlib.suppress(FileNotFoundError):
                used_at = path.stat().st_mtime
                if path.suffix == ".json":
                    used.append((used_at, path))
                elif path.name.startswith(".") and now - used_at > _LEFTOVER_SECONDS:
                    path.unlink()
        for _, path in sorted(used, reverse=True)[self._limit :]:
            path.unlink(missing_ok=True)


def _look_up(entry: Path, path: Path) -> str | None:
    """Return the digest of a file if an entry holds it; None if it is to be hashed."""
    stamp = _Stamp.read(path)
    try:
        kept = _Entry.model_validate_json(entry.read_bytes())
    except (OSError, ValidationError):
        return None
    if not kept.is_valid(path, stamp):
        return None
    # The least recently used entries are removed first.
    with contextlib.suppress(OSError):
        os.utime(entry)
    return kept.digest


def _compute_check(path: Path, stamp: _Stamp, digest: str) -> str:
    return digest_document([str(path), stamp.model_dump(mode="json"), digest])
