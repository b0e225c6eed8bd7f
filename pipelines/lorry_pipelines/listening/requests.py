"""Requests to retrain, in the store: one for each event, however often and to whomever it is delivered.

Layout: ``requests/<id>/request.json``, and ``requests/<id>/done.json`` once it was carried out.
"""

import json
from collections import defaultdict
from datetime import timedelta
from typing import Any

from lorry_pipelines.listening.events import Request
from lorry_registry.digests import canonical_json
from lorry_registry.errors import StoreError
from lorry_registry.stores import Store

_PREFIX = "requests"
_REQUEST, _DONE = "request.json", "done.json"
# Far longer than a delivery may be old.
_KEPT = timedelta(days=30)


class RequestLog:
    """The requests in a store.

    Args:
        store: Where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def enter(self, request: Request) -> bool:
        """Keep a request; return whether it is a new one.

        Raises:
            StoreError: The store cannot be written.
        """
        key = f"{_PREFIX}/{request.id}/{_REQUEST}"
        if self._store.read(key) is not None:
            return False
        self._store.create(key, canonical_json({"source": request.source, "tasks": list(request.tasks)}))
        return True

    def list_pending(self) -> list[Request]:
        """Return the requests that were not carried out yet, sorted by their ids.

        Raises:
            StoreError: The store cannot be read, or a request was damaged.
        """
        found: defaultdict[str, set[str]] = defaultdict(set)
        for key in self._store.list_keys(_PREFIX):
            _, name, part = key.split("/", 2)
            found[name].add(part)
        return [self._read(name) for name, parts in sorted(found.items()) if _DONE not in parts]

    def finish(self, request: Request, *, code: int) -> None:
        """Note that a request was carried out, and with which exit code.

        Raises:
            StoreError: The store cannot be written.
        """
        self._store.replace(f"{_PREFIX}/{request.id}/{_DONE}", canonical_json({"code": code}))

    def prune(self) -> None:
        """Remove requests that were carried out long ago.

        Raises:
            StoreError: The store cannot be read or written.
        """
        now = self._store.read_clock()
        old = [
            entry.key.rpartition("/")[0]
            for entry in self._store.list_entries(_PREFIX)
            if entry.key.endswith(f"/{_DONE}") and now - entry.modified > _KEPT
        ]
        # What says that it is done goes last: without it the request would be carried out again.
        for part in (_REQUEST, _DONE):
            self._store.delete_all([f"{folder}/{part}" for folder in old])

    def _read(self, name: str) -> Request:
        key = f"{_PREFIX}/{name}/{_REQUEST}"
        stored = self._store.read(key)
        try:
            document: Any = json.loads(stored.content) if stored else None
            return Request(name, str(document["source"]), tuple(map(str, document["tasks"])))
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(
                "is no request to retrain",
                where=self._store.locate(key),
                todo="remove it, and send the event again",
            ) from error
