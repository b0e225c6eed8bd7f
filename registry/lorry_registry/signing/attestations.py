"""The places of signatures and provenance: in the store, and in a folder beside an adapter's files.

Layout in the store::

    attestations/<adapter>/signatures/<key id>.json         a signature by a key
    attestations/<adapter>/signatures/sigstore-<hex>.json   a signature by an identity
    attestations/<adapter>/provenance/<digest>.json         what a run says about how it made the adapter
    attestations/<adapter>/row-fingerprints/<digest>.json   which rows it was made from; not copied
    attestations/<adapter>/data-card/<digest>.json          what its data are; not copied

They are no part of the adapter, whose files are fixed by its id: further signatures may come later. Each is
written in one piece. In a pulled folder the same files lie below ``signatures/`` and ``provenance/``.
"""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from lorry_registry.errors import ConflictError
from lorry_registry.files.regular_files import open_regular
from lorry_registry.signing.adapter_signatures import PROVENANCE_FOLDER, SIGNATURES_FOLDER
from lorry_registry.stores import Store

KEYLESS_PREFIX = "sigstore-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.json")
_MAX_BYTES = 1 << 20
# Anyone who can write to a store could put any number there.
_MOST_FILES = 64


class Signatures(ABC):
    """The signatures of one adapter, by their names."""

    @abstractmethod
    def list_names(self) -> list[str]:
        """Return their names, sorted: a key's id, or ``sigstore-`` and more; only so many are looked at."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Return a signature, or None if there is none of this name."""


class StoredSignatures(Signatures):
    """The signatures of an adapter in a store.

    Args:
        store: The store.
        adapter_id: The adapter.
    """

    def __init__(self, store: Store, adapter_id: str) -> None:
        self._store = store
        self._prefix = f"{attestations_key(adapter_id)}/{SIGNATURES_FOLDER}"

    def list_names(self) -> list[str]:
        """Return the names of the signatures in the store."""
        names = [name for name in self._store.list_children(self._prefix) if _NAME.fullmatch(name)]
        return [name.removesuffix(".json") for name in names[:_MOST_FILES]]

    def read(self, name: str) -> bytes | None:
        """Return a signature from the store."""
        stored = self._store.read(self.key(name))
        return None if stored is None else stored.content

    def write(self, name: str, bundle: bytes, *, is_good: Callable[[bytes], bool]) -> bool:
        """Write a signature, in place of one that is not good: that one may be damaged or forged.

        Args:
            name: Its name.
            bundle: The signature.
            is_good: Whether one that is there already, such as that of another writer with the same key, may
                stay.

        Returns:
            Whether it was written.

        Raises:
            ConflictError: Others write there again and again.
        """
        try:
            self._store.create(self.key(name), bundle)
        except ConflictError:
            former = self.read(name)
            if former is not None and is_good(former):
                return False
            try:
                self._store.replace(self.key(name), bundle)
            except ConflictError:
                former = self.read(name)
                if former is None or not is_good(former):
                    raise
                return False
        return True

    def key(self, name: str) -> str:
        """Return the key of a signature in the store."""
        return f"{self._prefix}/{name}.json"


class FolderSignatures(Signatures):
    """The signatures that lie in an adapter's folder.

    Args:
        folder: The adapter's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / SIGNATURES_FOLDER

    def list_names(self) -> list[str]:
        """Return the names of the signatures in the folder."""
        try:
            names = sorted(path.name for path in self._folder.iterdir() if _NAME.fullmatch(path.name))
        except OSError:
            return []
        return [name.removesuffix(".json") for name in names[:_MOST_FILES]]

    def read(self, name: str) -> bytes | None:
        """Return a signature from the folder; what is no plain, small file is none."""
        try:
            with open_regular(self._folder / f"{name}.json") as stream:
                content = stream.read(_MAX_BYTES + 1)
        except OSError:
            return None
        return content if len(content) <= _MAX_BYTES else None


def attestations_key(adapter_id: str) -> str:
    """Return the key below which an adapter's signatures and provenance lie."""
    return f"attestations/{adapter_id.removeprefix('sha256:')}"


def provenance_key(adapter_id: str, digest: str) -> str:
    """Return the key of a document of provenance."""
    return f"{attestations_key(adapter_id)}/{PROVENANCE_FOLDER}/{digest.removeprefix('sha256:')}.json"


def copy_sidecars(store: Store, adapter_id: str, kind: str, folder: Path) -> None:
    """Copy the signatures or the provenance of an adapter from a store into its folder.

    What has no business there, such as a file that is too large, is left out.

    Args:
        store: The store.
        adapter_id: The adapter.
        kind: ``signatures`` or ``provenance``.
        folder: The adapter's folder.

    Raises:
        StoreError: The store cannot be read, or the folder cannot be written.
    """
    prefix = f"{attestations_key(adapter_id)}/{kind}"
    names = [name for name in store.list_children(prefix) if _NAME.fullmatch(name)]
    for name in names[:_MOST_FILES]:
        (folder / kind).mkdir(exist_ok=True)
        target = folder / kind / name
        store.download(f"{prefix}/{name}", target)
        if target.stat().st_size > _MAX_BYTES:
            target.unlink()


def find_sidecar_problems(folder: Path) -> list[str]:
    """Return what is wrong with a folder of signatures or provenance beside an adapter's files.

    It may hold small, plain JSON files only: nothing that a loader could take for an adapter's.
    """
    try:
        if folder.is_symlink() or not folder.is_dir():
            return [f"{folder.name} is not a folder"]
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        strangers = [
            entry.name
            for entry in entries
            if not _NAME.fullmatch(entry.name)
            or not entry.is_file(follow_symlinks=False)
            or entry.stat(follow_symlinks=False).st_size > _MAX_BYTES
        ]
    except OSError as error:
        return [f"{folder.name} cannot be read: {error.strerror or error}"]
    if len(entries) > _MOST_FILES:
        return [f"{folder.name} holds more than {_MOST_FILES} files"]
    return [f"{folder.name}/{name} does not belong to it" for name in strangers]
