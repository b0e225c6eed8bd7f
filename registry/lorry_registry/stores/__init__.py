"""Where adapters and ledgers are kept: one small interface, shaped so that object stores fit it.

Every write is one of three: *create* (fails when the key exists with other content), *compare and swap*
(fails when the content is not what the writer last read), *upload* (a create from a file). On S3 these are
``IfNoneMatch="*"`` and ``IfMatch=<ETag>``; on a local folder a hard link and a lock.
"""

from lorry_registry.stores.base import Store, StoredDocument, check_key
from lorry_registry.stores.local import LocalStore
from lorry_registry.stores.opening import open_store

__all__ = ["LocalStore", "Store", "StoredDocument", "check_key", "open_store"]
