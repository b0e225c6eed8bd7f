"""The interface of a store, and the rule for keys."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, NoReturn

from lorry_registry.errors import StoreError
from lorry_registry.files.digests import digest_bytes

MAX_DOCUMENT_BYTES = 64 << 20
"""The size of the largest document that is read into memory. Larger content is downloaded to a file."""

_KEY_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """The content of a key, and the tag that a compare-and-swap has to name."""

    content: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A key without its content: its size in bytes, and when it was written, by the store's own clock."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class UnfinishedWrite:
    """What a writer that was killed, or is still at work, has left: no key, but it takes room.

    Attributes:
        name: What the store calls it; it begins with the key where that is known.
        size: Its bytes so far.
        modified: When it was begun or last written, by the store's own clock.
    """

    name: str
    size: int
    modified: datetime


def check_key(key: str) -> str:
    """Return a key that stays inside its store.

    Raises:
        StoreError: A part is empty, hidden, ``..``, or holds a character outside ``A-Za-z0-9._-``.
    """
    if not all(_KEY_PART.fullmatch(part) for part in key.split("/")):
        raise StoreError(
            f"{key!r} is not a key: parts of A-Za-z0-9._- joined by '/'",
            where="store",
            todo="correct the name",
        )
    return key


def refuse_large(where: str) -> NoReturn:
    """Refuse a document that is too large to be one of ours.

    Raises:
        StoreError: Always.
    """
    raise StoreError(
        f"is larger than {MAX_DOCUMENT_BYTES >> 20} MiB, and no document is",
        where=where,
        todo="find out who wrote it, and restore it from a backup",
    )


class Store(ABC):
    """A map from keys to bytes with conditional writes.

    All methods raise ``StoreError`` when the store cannot be reached, read or written.

    Attributes:
        address: Where it is.
        concurrency: How many requests at once are worth while: 1 where a request hardly waits. With more,
            methods are called from several threads.
    """

    address: str
    concurrency: ClassVar[int] = 1

    @abstractmethod
    def read(self, key: str) -> StoredDocument | None:
        """Return the content of a key, or None when there is none.

        Raises:
            StoreError: It is larger than :data:`MAX_DOCUMENT_BYTES`: no document of ours is.
        """

    def digest_key(self, key: str) -> str | None:
        """Return ``sha256:<hex>`` of the content of a key, or None when there is none.

        A store whose keys can be large reads them in pieces for it.
        """
        stored = self.read(key)
        return None if stored is None else digest_bytes(stored.content)

    @abstractmethod
    def create(self, key: str, content: bytes) -> None:
        """Write a new key. The same content again is a success: a retry after a lost answer.

        Raises:
            ConflictError: The key exists with other content.
        """

    @abstractmethod
    def compare_and_swap(self, key: str, content: bytes, expected: str | None) -> str:
        """Replace a key only if its tag is still the expected one (None: it must not exist).

        Returns:
            The new tag.

        Raises:
            ConflictError: The key was changed, created or removed since it was read.
        """

    def replace(self, key: str, content: bytes) -> None:
        """Write a key without a condition, for documents with a single writer at a time.

        Raises:
            ConflictError: Another writer came first after all.
        """
        former = self.read(key)
        self.compare_and_swap(key, content, former.etag if former else None)

    def overwrite(self, key: str, content: bytes) -> None:
        """Write a key that no other process writes, such as one with a random name; its age begins anew."""
        self.replace(key, content)

    @abstractmethod
    def upload(self, key: str, source: Path) -> None:
        """Create a key from a file, as ``create`` does."""

    @abstractmethod
    def download(self, key: str, target: Path) -> None:
        """Write the content of a key to a new file.

        Raises:
            NotFoundError: There is no such key.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a key; a key that is not there is a success."""

    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove keys in any order, in few requests where the store can."""
        for key in keys:
            self.delete(key)

    @abstractmethod
    def list_entries(self, prefix: str) -> Iterator[StoredEntry]:
        """Yield every key below ``prefix/`` with its size and age, in any order, a page at a time."""

    def list_unfinished(self, prefixes: Sequence[str]) -> Iterator[UnfinishedWrite]:
        """Yield what writers have begun below any of some prefixes and not finished.

        A store that cannot tell for which key a write was meant yields all.
        """
        return iter(())

    def remove_unfinished(self, write: UnfinishedWrite) -> None:
        """Remove what :meth:`list_unfinished` has yielded; what is not there any more is a success."""
        raise StoreError("this store has no unfinished writes", where=self.address)

    def read_clock(self) -> datetime:
        """Return the time by the clock that dates the keys of this store, to a second or so."""
        return datetime.now(UTC)

    @abstractmethod
    def list_keys(self, prefix: str) -> Iterator[str]:
        """Yield every key below ``prefix/``, sorted by its parts."""

    @abstractmethod
    def list_children(self, prefix: str) -> list[str]:
        """Return the names directly below ``prefix/``, sorted.

        A server that keeps folders may still name one whose keys were all deleted.
        """

    @abstractmethod
    def locate(self, key: str) -> str:
        """Return the address of a key, for people and for other programs."""

    @abstractmethod
    def find_path(self, key: str) -> Path | None:
        """Return where a key lies on this machine's disk, or None for a remote store."""

    @abstractmethod
    def check_writable(self) -> None:
        """Raise ``StoreError`` unless this store can be written, before anything is spent."""
