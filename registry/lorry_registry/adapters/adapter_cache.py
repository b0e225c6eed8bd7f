"""Verified copies of adapters, by their ids, in a folder that several processes share.

An adapter is downloaded once, by the first process that asks, and is hashed in full at every request: the
folder is a copy that anybody may have damaged. Beyond a size, the least recently used adapters are removed,
but none that a process is using: its users share its lock, and only who has the lock alone removes it. What a
killed download leaves is never taken for an adapter, and is removed by a later one.

A folder that cannot be written, or a file system without locks, makes downloads fail or repeat, and never
leads to a wrong adapter.
"""

import contextlib
import logging
import os
import re
import shutil
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from lorry_registry.adapters.verification import verify_adapter
from lorry_registry.errors import AdapterRejectedError
from lorry_registry.files.file_locks import hold_lock, share_lock, try_lock
from lorry_registry.settings import DEFAULT_CACHE_BYTES

_LOGGER = logging.getLogger(__name__)
_LOCKS = "locks"
_ADAPTER = re.compile(r"[0-9a-f]{64}")
_LEFTOVER = re.compile(r"\.([0-9a-f]{64})\.[0-9a-f]{32}\.partial")


class AdapterCache:
    """A folder of adapters.

    What was fetched stays where it is as long as this object lives, and may be removed by others afterwards.

    Args:
        folder: Where they are.
        limit: How large it may become, in bytes. Adapters in use stay even if they are larger together.
    """

    def __init__(self, folder: Path, *, limit: int = DEFAULT_CACHE_BYTES) -> None:
        self.folder = folder
        self._limit = limit
        self._shared: set[str] = set()
        self._locks = contextlib.ExitStack()
        weakref.finalize(self, self._locks.close)

    def fetch(self, adapter_id: str, download: Callable[[Path], object]) -> Path:
        """Return the folder of an adapter, every byte of which was compared with the adapter's id.

        Args:
            adapter_id: ``sha256:<hex>``.
            download: Makes the folder of the verified adapter, whole or not at all.

        Raises:
            LorryError: What ``download`` raises.
        """
        name = adapter_id.removeprefix("sha256:")
        folder = self.folder / name
        self._share(name)
        if not _is_sound(folder, adapter_id):
            with self._downloading(name):
                # Another process may have come first.
                if not _is_sound(folder, adapter_id):
                    self._discard(folder)
                    download(folder)
            try:
                self._make_room()
            except OSError as error:
                _LOGGER.info("the cache %s cannot be tidied: %s", self.folder, error)
        with contextlib.suppress(OSError):
            # The least recently used adapters are removed first.
            os.utime(folder)
        return folder

    def find(self, adapter_id: str) -> Path | None:
        """Return the folder of an adapter, compared with its id, if it is here; None: it is not."""
        name = adapter_id.removeprefix("sha256:")
        folder = self.folder / name
        if not folder.is_dir():
            return None
        self._share(name)
        return folder if _is_sound(folder, adapter_id) else None

    def _share(self, name: str) -> None:
        """Keep others from removing an adapter as long as this object lives."""
        if name in self._shared:
            return
        try:
            share_lock(self._locks, self._locate_lock(name))
        except OSError as error:
            _LOGGER.info("%s is used without a lock: %s", name, error)
        else:
            self._shared.add(name)

    @contextlib.contextmanager
    def _downloading(self, name: str) -> Iterator[None]:
        """Let one process at a time download an adapter. All of them share its lock already."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(hold_lock(self._locate_lock(name).with_suffix(".download")))
            except OSError as error:
                _LOGGER.info("%s is downloaded without a lock: %s", name, error)
            yield

    def _make_room(self) -> None:
        """Remove what killed downloads left, and the least recently used adapters beyond the limit."""
        used: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            leftover = _LEFTOVER.fullmatch(path.name)
            if leftover:
                with self._alone(leftover[1]) as is_alone:
                    if is_alone:
                        shutil.rmtree(path, ignore_errors=True)
            elif _ADAPTER.fullmatch(path.name):
                # Another process may remove it at the same time.
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    used.append((path.stat().st_mtime, _measure(path), path))
        excess = sum(size for _, size, _ in used) - self._limit
        for _, size, path in sorted(used):
            if excess <= 0:
                break
            with self._alone(path.name) as is_alone:
                if is_alone:
                    self._discard(path)
                    excess -= size

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[bool]:
        """Yield whether no process uses or downloads an adapter; none begins to before the end."""
        lock = self._locate_lock(name)
        with contextlib.ExitStack() as stack:
            is_alone = False
            with contextlib.suppress(OSError):
                is_alone = try_lock(stack, lock)
            yield is_alone
            if is_alone:
                # Only its holder may remove a lock's file.
                for path in (lock.with_suffix(".download"), lock):
                    path.unlink(missing_ok=True)

    def _discard(self, folder: Path) -> None:
        """Remove a folder under a name that is no adapter's, as far as that is possible."""
        if not folder.is_dir():
            return
        aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
        # A file that cannot be removed makes the download fail.
        with contextlib.suppress(OSError):
            folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _locate_lock(self, name: str) -> Path:
        return self.folder / _LOCKS / name


def _is_sound(folder: Path, adapter_id: str) -> bool:
    if not folder.is_dir():
        return False
    try:
        verify_adapter(folder, expected_id=adapter_id)
    except AdapterRejectedError:
        return False
    return True


def _measure(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
