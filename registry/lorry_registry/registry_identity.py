"""The id of a registry: by it an MLflow that several registries share keeps them apart."""

import uuid

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorry_registry.digests import canonical_json
from lorry_registry.errors import ConflictError, StoreError
from lorry_registry.stores import Store

_KEY = "registry.json"


class _Identity(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(default=1, ge=1, le=1)
    id: str = Field(pattern=r"^[0-9a-f]{32}$")


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
