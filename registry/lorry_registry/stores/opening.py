"""From an address to a store."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from lorry_registry.errors import StoreError
from lorry_registry.stores.base import Store
from lorry_registry.stores.local import LocalStore


def open_store(address: str) -> Store:
    """Return the store at an address: a folder, or a ``file://`` address of one.

    Raises:
        StoreError: The address has a scheme that no store serves.
    """
    parts = urlsplit(address)
    if not parts.scheme:
        return LocalStore(Path(address).absolute())
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return LocalStore(Path(unquote(parts.path)))
    raise StoreError(
        f"no store serves addresses of the form {parts.scheme}://",
        where=address,
        todo="set LORRY_STORE to a local folder",
    )
