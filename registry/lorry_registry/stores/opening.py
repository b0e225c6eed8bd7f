"""From an address to a store."""

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote

from lorry_registry.addresses import hide_secrets, split_store_address
from lorry_registry.errors import StoreError
from lorry_registry.stores.base import Store
from lorry_registry.stores.local import LocalStore

Opener = Callable[[str], Store]


def open_store(address: str) -> Store:
    """Return the store at an address: a folder, or a URL whose scheme is in :data:`OPENERS`.

    Raises:
        StoreError: No store serves the address.
    """
    scheme = split_store_address(address).scheme
    if scheme not in OPENERS:
        raise _refuse(address)
    return OPENERS[scheme](address)


def _open_folder(address: str) -> Store:
    return LocalStore(Path(address).absolute())


def _open_file_address(address: str) -> Store:
    parts = split_store_address(address)
    if parts.netloc not in ("", "localhost"):
        raise _refuse(address)
    return LocalStore(Path(unquote(parts.path)))


def _refuse(address: str) -> StoreError:
    return StoreError(
        f"no store serves addresses of the form {split_store_address(address).scheme}://",
        where=hide_secrets(address),
        todo="set LORRY_STORE to a local folder",
    )


# What opens an address, by its scheme; a plain path has none.
OPENERS: Mapping[str, Opener] = {"": _open_folder, "file": _open_file_address}
