"""The id of a registry, which distinguishes it from others.

An MLflow that several registries share keeps them apart by it, and a ledger that was copied from one store
into another is noticed. The id lies in the store: a store that is moved or copied whole keeps its id.
"""

import uuid

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorry_registry.errors import ConflictError, StoreError
from lorry_registry.files.digests import canonical_json
from lorry_registry.manifest import FORMAT, FormatNumber
from lorry_registry.stores import Store, StoredDocument

_KEY = "registry.json"


class _Identity(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: FormatNumber = FORMAT
    id: str = Field(pattern=r"^[0-9a-f]{32}$")


class RegistryIdentity:
    """The id of the registry in a store, which is read at most once: it never changes.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._id: str | None = None
        self._was_sought = False

    def read(self) -> str | None:
        """Return the id, or None if none was asked for yet; a reader creates none.

        Raises:
            StoreError: The store cannot be read, or the id in it was changed.
        """
        if self._id is None:
            self._id = read_id(self._store)
            self._was_sought = True
        return self._id

    def ensure(self) -> str:
        """Return the id; the first to ask creates it.

        Raises:
            StoreError: The store cannot be read or written, or the id in it was changed.
        """
        if self._id is None:
            self._id = read_or_create_id(self._store)
        return self._id

    def read_beside(self, key: str) -> StoredDocument | None:
        """Return the content of a key, and read the id in the same time, if the store is not on this machine.

        So the comparison with the id costs no round trip. On this machine it is one small file, read when it
        is asked for.

        Raises:
            StoreError: The store cannot be read, or the id in it was changed.
        """
        if self._was_sought or self._id is not None or self._store.find_path(_KEY) is not None:
            return self._store.read(key)
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(max_workers=1) as pool:
            identity = pool.submit(self.read)
            stored = self._store.read(key)
            identity.result()
        return stored


def read_id(store: Store) -> str | None:
    """Return the id of the registry in a store, or None as long as nothing was registered there.

    Raises:
        StoreError: The store cannot be read, or the id in it was changed.
    """
    stored = store.read(_KEY)
    return None if stored is None else _parse_id(store, stored.content)


def read_or_create_id(store: Store) -> str:
    """Return the id of the registry in a store; the first to ask creates it.

    Raises:
        StoreError: The store cannot be read or written, or the id in it was changed.
    """
    known = read_id(store)
    if known is not None:
        return known
    created = _Identity(id=uuid.uuid4().hex)
    try:
        store.create(_KEY, canonical_json(created.model_dump(mode="json")))
    except ConflictError:
        # Another process came first: its id is the registry's.
        stored = store.read(_KEY)
        return _parse_id(store, stored.content if stored else b"")
    return created.id


def _parse_id(store: Store, content: bytes) -> str:
    try:
        return _Identity.model_validate_json(content).id
    except ValidationError as error:
        raise StoreError(
            f"not the id of a registry: {error.errors()[0]['msg']}",
            where=store.locate(_KEY),
            todo="restore it from a backup, or upgrade lorry",
        ) from error
