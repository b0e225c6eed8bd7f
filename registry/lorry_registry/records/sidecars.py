"""Documents beside an adapter in the store, each named by its digest: what is known of it besides its files.

Layout in the store::

    attestations/<adapter>/<folder>/<digest>.json
"""

from lorry_registry.errors import AdapterRejectedError, ConflictError
from lorry_registry.files.digests import digest_bytes
from lorry_registry.signing.attestations import attestations_key
from lorry_registry.stores import Store


def sidecar_key(adapter_id: str, folder: str, digest: str) -> str:
    """Return the key of a document."""
    return f"{attestations_key(adapter_id)}/{folder}/{digest.removeprefix('sha256:')}.json"


def store_sidecar(store: Store, key: str, content: bytes) -> None:
    """Put a document beside its adapter; repeating it is harmless.

    Raises:
        StoreError: The store cannot be written.
    """
    try:
        store.create(key, content)
    except ConflictError:
        # A damaged copy is there: its name says what it should be.
        store.replace(key, content)


def read_sidecar(store: Store, key: str, digest: str, *, name: str, todo: str) -> bytes:
    """Return a document, checked against its digest.

    Args:
        store: The store.
        key: Its key.
        digest: Its digest, from where it cannot be changed unnoticed.
        name: What it is, in messages.
        todo: What to do if it is damaged.

    Raises:
        AdapterRejectedError: It is missing or was changed.
        StoreError: The store cannot be read.
    """
    stored = store.read(key)
    if stored is None:
        problem = f"{name} is missing"
    elif digest_bytes(stored.content) != digest:
        problem = f"{name} was changed"
    else:
        return stored.content
    raise AdapterRejectedError(problem, where=store.locate(key), todo=todo)
