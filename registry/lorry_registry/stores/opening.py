"""From an address to a store."""

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote

from lorry_registry.errors import StoreError
from lorry_registry.stores.base import Store
from lorry_registry.stores.local_store import LocalStore
from lorry_registry.stores.s3_client import S3Options
from lorry_registry.text.addresses import hide_secrets, split_store_address

Opener = Callable[[str, S3Options], Store]


def open_store(address: str, options: S3Options | None = None) -> Store:
    """Return the store at an address: a folder, or a URL whose scheme is in :data:`OPENERS`.

    Args:
        address: The address.
        options: Options of a store on S3 beyond boto3's own settings; others do not look at it.

    Raises:
        StoreError: No store serves the address.
    """
    scheme = split_store_address(address).scheme
    if scheme not in OPENERS:
        raise _refuse(address)
    return OPENERS[scheme](address, options or S3Options())


def _open_folder(address: str, _: S3Options) -> Store:
    return LocalStore(Path(address).absolute())


def _open_file_address(address: str, _: S3Options) -> Store:
    parts = split_store_address(address)
    if parts.netloc not in ("", "localhost"):
        raise _refuse(address)
    return LocalStore(Path(unquote(parts.path)))


def _open_s3(address: str, options: S3Options) -> Store:
    # It brings botocore with it, which a store in a folder has no use for.
    from lorry_registry.stores.s3_store import S3Store

    return S3Store(address, options)


def _refuse(address: str) -> StoreError:
    return StoreError(
        f"no store serves addresses of the form {split_store_address(address).scheme}://",
        where=hide_secrets(address),
        todo="set LORRY_STORE to a local folder or to s3://bucket/prefix",
    )


# What opens an address, by its scheme; a plain path has none.
OPENERS: Mapping[str, Opener] = {"": _open_folder, "file": _open_file_address, "s3": _open_s3}
