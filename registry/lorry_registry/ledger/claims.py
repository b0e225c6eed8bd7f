"""Claims: that an adapter is new to a task is known from one key, however long the history is.

A claim is written before the event that gives its adapter a version. So an adapter without a claim has no
version. One with a claim may have none either, if its writer was killed in between or another one was faster.
"""

import uuid

from lorry_registry.errors import ConflictError
from lorry_registry.files.digests import canonical_json
from lorry_registry.stores import Store


def create_claim(store: Store, task: str, adapter_id: str) -> bool:
    """Claim an adapter for a task; return whether it was free.

    Raises:
        StoreError: The store cannot be written.
    """
    # Its own token tells a writer that its answer was lost from one that came second.
    content = canonical_json({"adapter_id": adapter_id, "by": uuid.uuid4().hex})
    try:
        store.create(f"tasks/{task}/claims/{adapter_id.removeprefix('sha256:')}.json", content)
    except ConflictError:
        return False
    return True
