"""A store in a local folder.

Every file appears whole: it is written under a temporary name, flushed to disk, and then linked or renamed
into place. A kill at any moment leaves a key as it was or as it was meant to be.

A folder goes with its last key. A process that was about to write into it makes it again.
"""

import contextlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from lorry_registry.errors import ConflictError, NotFoundError, StoreError
from lorry_registry.files.atomic_write import whole_file
from lorry_registry.files.digests import digest_bytes, digest_file
from lorry_registry.files.file_locks import hold_lock
from lorry_registry.files.regular_files import open_regular
from lorry_registry.stores.base import (
    MAX_DOCUMENT_BYTES,
    Store,
    StoredDocument,
    StoredEntry,
    UnfinishedWrite,
    check_key,
    refuse_large,
)

_LOCK, _DELETION_LOCKS, _SCRATCH = ".lock", ".locks", ".scratch"
# No write takes this long, so what is older was left by a writer that was killed.
_SCRATCH_SECONDS = 24 * 3600
# An attempt takes microseconds, and fails only when another process deletes in just these.
_ATTEMPTS = 1000


class LocalStore(Store):
    """A store below one folder, safe for several processes of one machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = str(root)

    def read(self, key: str) -> StoredDocument | None:
        """Return the content of a key; its tag is its SHA-256."""
        path = self._path(key)
        with self._reporting("read", key):
            try:
                with open_regular(path) as stream:
                    # One more than it has: a file that grows meanwhile is seen, and no more room is taken.
                    content = stream.read(min(os.fstat(stream.fileno()).st_size, MAX_DOCUMENT_BYTES) + 1)
            except (FileNotFoundError, NotADirectoryError):
                return None
        if len(content) > MAX_DOCUMENT_BYTES:
            refuse_large(self.locate(key))
        return StoredDocument(content, digest_bytes(content))

    def digest_key(self, key: str) -> str | None:
        """Return the digest of a key, which is read in small pieces."""
        with self._reporting("read", key):
            try:
                return digest_file(self._path(key))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def create(self, key: str, content: bytes) -> None:
        """Write a new key through a hard link, which fails when the name is taken."""
        with self._reporting("write", key), self._scratch_file() as scratch:
            scratch.write_bytes(content)
            self._link(scratch, key)

    def upload(self, key: str, source: Path) -> None:
        """Copy a file into the store under a new key."""
        with self._reporting("write", key), self._scratch_file() as scratch:
            shutil.copyfile(source, scratch)
            self._link(scratch, key)

    def compare_and_swap(self, key: str, content: bytes, expected: str | None) -> str:
        """Replace a key under a lock on its folder, by renaming a finished file over it."""
        path = self._path(key)
        with self._reporting("write", key), self._hold_folder(path.parent), self._scratch_file() as scratch:
            current = self.read(key)
            if (current.etag if current else None) != expected:
                raise ConflictError(
                    "it was changed by another writer since it was read",
                    where=self.locate(key),
                    todo="look at the present state and try again",
                )
            scratch.write_bytes(content)
            _flush(scratch)
            scratch.replace(path)
            _flush(path.parent)
        return digest_bytes(content)

    def overwrite(self, key: str, content: bytes) -> None:
        """Write a key by renaming a finished file over it; with a single writer, there is no lock."""
        path = self._path(key)
        with self._reporting("write", key), self._scratch_file() as scratch:
            scratch.write_bytes(content)

            def move() -> None:
                path.parent.mkdir(parents=True, exist_ok=True)
                scratch.replace(path)

            _repeat_if_folder_went(move)

    def download(self, key: str, target: Path) -> None:
        """Copy a key to a file; the file appears whole."""
        with contextlib.ExitStack() as stack:
            with self._reporting("read", key):
                try:
                    source = stack.enter_context(open_regular(self._path(key)))
                except (FileNotFoundError, NotADirectoryError) as error:
                    raise NotFoundError(
                        "there is no such key in the store",
                        where=self.locate(key),
                        todo="check that LORRY_STORE names the right store, or restore it from a backup",
                    ) from error
            try:
                with whole_file(target) as partial, partial.open("xb") as stream:
                    shutil.copyfileobj(source, stream)
            except OSError as error:
                raise StoreError(
                    f"cannot be written: {error.strerror or error}",
                    where=str(target),
                    todo="check that the disk has space and that this user may write there",
                ) from error

    def delete(self, key: str) -> None:
        """Remove a key, and the folders that hold nothing any more."""
        path = self._path(key)
        with self._reporting("delete", key):
            if path.is_dir() or not os.path.lexists(path):
                return
            # A swap holds the same lock: it cannot bring back what was removed since it looked.
            with self._hold_deletions(path.parent), contextlib.suppress(FileNotFoundError):
                path.unlink()
                _flush(path.parent)
            self._remove_empty_folders(path.parent)

    def list_entries(self, prefix: str) -> Iterator[StoredEntry]:
        """Yield every key below a prefix, a folder at a time."""
        base = self._path(prefix)
        for folder, names, files in os.walk(base, onerror=self._raise_unless_missing):
            names[:] = [name for name in names if name[0] != "."]
            for name in files:
                path = Path(folder, name)
                # Another process may delete a key between the listing and here.
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat(follow_symlinks=False)
                    if name[0] != "." and stat.S_ISREG(status.st_mode):
                        key = f"{prefix}/{path.relative_to(base).as_posix()}"
                        yield StoredEntry(key, status.st_size, _read_time(status.st_mtime))

    def list_unfinished(self, prefixes: Sequence[str]) -> Iterator[UnfinishedWrite]:
        """Yield scratch files of all keys."""
        with self._reporting("list", _SCRATCH):
            found = list((self.root / _SCRATCH).glob("*"))
        for path in found:
            with contextlib.suppress(FileNotFoundError):
                status = path.stat(follow_symlinks=False)
                yield UnfinishedWrite(f"{_SCRATCH}/{path.name}", status.st_size, _read_time(status.st_mtime))

    def remove_unfinished(self, write: UnfinishedWrite) -> None:
        """Remove a scratch file."""
        with self._reporting("delete", write.name):
            (self.root / _SCRATCH / Path(write.name).name).unlink(missing_ok=True)

    def read_clock(self) -> datetime:
        """Return the time by which the file system dates files; that of this machine if it takes none."""
        if not (self.root / _SCRATCH).is_dir():
            # Nothing was ever written here, and asking for the time is no reason to begin.
            return datetime.now(UTC)
        try:
            with self._scratch_file() as scratch:
                scratch.touch()
                return _read_time(scratch.stat().st_mtime)
        except OSError:
            return datetime.now(UTC)

    def list_keys(self, prefix: str) -> Iterator[str]:
        """Yield every key below a prefix, sorted."""
        base = self._path(prefix)
        with self._reporting("list", prefix):
            paths = sorted(path for path in base.rglob("*") if path.is_file() and path.name[0] != ".")
        for path in paths:
            yield path.relative_to(self.root).as_posix()

    def list_children(self, prefix: str) -> list[str]:
        """Return the names directly below a prefix, sorted."""
        with self._reporting("list", prefix):
            try:
                return sorted(entry.name for entry in self._path(prefix).iterdir() if entry.name[0] != ".")
            except FileNotFoundError:
                return []

    def locate(self, key: str) -> str:
        """Return a ``file://`` address."""
        return self._path(key).as_uri()

    def find_path(self, key: str) -> Path | None:
        """Return the path of a key; it need not exist."""
        return self._path(key)

    def check_writable(self) -> None:
        """Write and remove one scratch file, and remove those that killed writers left."""
        with self._reporting("write", ""):
            with self._scratch_file() as scratch:
                scratch.write_bytes(b"lorry")
                _flush(scratch)
            self._sweep_scratch()

    def _path(self, key: str) -> Path:
        return (self.root / check_key(key)).absolute()

    def _link(self, scratch: Path, key: str) -> None:
        path = self._path(key)
        _flush(scratch)

        def link() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(scratch, path)
            except FileExistsError as error:
                if digest_file(path) != digest_file(scratch):
                    raise ConflictError("it exists with other content", where=self.locate(key)) from error

        _repeat_if_folder_went(link)
        # A process that removed the key and the folder meanwhile flushed that.
        with contextlib.suppress(FileNotFoundError):
            _flush(path.parent)

    @contextlib.contextmanager
    def _hold_folder(self, folder: Path) -> Iterator[None]:
        with contextlib.ExitStack() as stack:

            def lock() -> None:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(hold_lock(folder / _LOCK))

            stack.enter_context(self._hold_deletions(folder))
            _repeat_if_folder_went(lock)
            yield

    @contextlib.contextmanager
    def _hold_deletions(self, folder: Path) -> Iterator[None]:
        """Keep a key of a folder from being deleted, or delete it.

        The lock lies apart: in an adapter's folder even a hidden file would not belong to it.
        """
        name = digest_bytes(os.fsencode(folder.relative_to(self.root.absolute()))).removeprefix("sha256:")[:2]
        locks = self.root / _DELETION_LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        with hold_lock(locks / name):
            yield

    def _remove_empty_folders(self, folder: Path) -> None:
        root = self.root.absolute()
        while folder != root:
            # It may be gone already, or another user's: an empty folder that stays is no key.
            try:
                names = {entry.name for entry in folder.iterdir()}
                if names - {_LOCK}:
                    return
                if names:
                    self._remove_lock(folder)
                # A new key may come first, and keeps the folder.
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _remove_lock(self, folder: Path) -> None:
        with hold_lock(folder / _LOCK):
            # Who has made a key since keeps the folder and the lock.
            if all(entry.name == _LOCK for entry in folder.iterdir()):
                (folder / _LOCK).unlink()

    @contextlib.contextmanager
    def _scratch_file(self) -> Iterator[Path]:
        folder = self.root / _SCRATCH
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / uuid.uuid4().hex
        try:
            yield scratch
        finally:
            scratch.unlink(missing_ok=True)

    def _sweep_scratch(self) -> None:
        oldest = time.time() - _SCRATCH_SECONDS
        for leftover in (self.root / _SCRATCH).iterdir():
            # Another process may finish or sweep a file between the listing and here.
            with contextlib.suppress(FileNotFoundError):
                if leftover.stat().st_mtime < oldest:
                    leftover.unlink()

    def _raise_unless_missing(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            with self._reporting("list", ""):
                raise error

    @contextlib.contextmanager
    def _reporting(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"cannot {verb} {key or 'here'}: {error.strerror or error}",
                where=self.address,
                todo="check that the disk has space and that this user may write there, or set LORRY_STORE",
            ) from error


def _read_time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _repeat_if_folder_went(action: Callable[[], None]) -> None:
    """Make a folder and use it, again when the folder went with its last key in between.

    ``mkdir`` raises one error or the other then, depending on the moment.
    """
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            action()
            return
    action()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
