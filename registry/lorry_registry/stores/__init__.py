"""Stores of adapters and ledgers: one small interface, shaped so that object stores fit it.

Every write is one of three: *create* (fails when the key exists with other content), *compare and swap*
(fails when the content is not what the writer last read), *upload* (a create from a file). On S3 these are
``IfNoneMatch="*"`` and ``IfMatch=<ETag>``; on a local folder a hard link and a lock.

``base`` is the interface and ``opening`` goes from an address to a store. ``local_store`` is a folder.
``s3_store`` is a bucket, with ``s3_client`` (how a client is made, for data as well), ``s3_errors`` (what an
error means), ``s3_conditions`` (does the server keep conditions?) and ``s3_upkeep`` (removing much at once).
boto3 is imported only when a store on S3 is opened.
"""

from lorry_registry.stores.base import Store, StoredDocument, StoredEntry, UnfinishedWrite, check_key
from lorry_registry.stores.local_store import LocalStore
from lorry_registry.stores.opening import open_store
from lorry_registry.stores.s3_client import S3Options

__all__ = [
    "LocalStore",
    "S3Options",
    "Store",
    "StoredDocument",
    "StoredEntry",
    "UnfinishedWrite",
    "check_key",
    "open_store",
]
