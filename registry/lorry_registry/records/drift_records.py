"""The last drift found in a task's new inputs, kept in the store beside the ledger.

Layout in the store: ``drift/<task>.json``, the newest finding only. It counts for the champion that it names:
with another champion it is out of date.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lorry_registry.errors import StoreError
from lorry_registry.files.digests import canonical_json
from lorry_registry.ledger.events import Champion
from lorry_registry.manifest import Digest
from lorry_registry.stores import Store


class DriftRecord(BaseModel):
    """What was found of new inputs.

    Attributes:
        version: The version of this document's form.
        task: The task.
        champion: The champion's version at that time.
        adapter_id: The champion's adapter.
        inputs_digest: Of the new inputs.
        at: When, in UTC.
        has_drifted: Whether the new inputs are surely of another kind.
        confidence: How sure a shift had to be.
        shifts: What shifted, each with its p-value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    task: str
    champion: int
    adapter_id: Digest
    inputs_digest: Digest
    at: datetime
    has_drifted: bool
    confidence: float
    shifts: dict[str, float] = {}

    def concerns(self, champion: Champion | None) -> bool:
        """Return whether a champion is the one that the inputs were compared for."""
        return champion is not None and champion.adapter_id == self.adapter_id

    def describe(self) -> str:
        """Return the finding in a sentence without a full stop."""
        when = self.at.strftime("%Y-%m-%d")
        if not self.has_drifted:
            return f"inputs of {when} are like the rows that v{self.champion} was trained on"
        shifted = ", ".join(self.shifts)
        return f"inputs of {when} have drifted from the rows that v{self.champion} was trained on: {shifted}"


def drift_key(task: str) -> str:
    """Return the key of a task's record."""
    return f"drift/{task}.json"


def write_drift(store: Store, record: DriftRecord) -> None:
    """Keep a finding in place of the one before it.

    Raises:
        StoreError: The store cannot be written.
        ConflictError: Another finding was written at the same moment.
    """
    store.replace(drift_key(record.task), canonical_json(record.model_dump(mode="json")))


def read_drift(store: Store, task: str) -> DriftRecord | None:
    """Return what was last found of a task's inputs; None: they were never looked at.

    Raises:
        StoreError: The store cannot be read, or the record was damaged.
    """
    stored = store.read(drift_key(task))
    if stored is None:
        return None
    try:
        return DriftRecord.model_validate_json(stored.content)
    except ValidationError as error:
        raise StoreError(
            "is no record of drift",
            where=store.locate(drift_key(task)),
            todo=f"remove it, and look again: lorry drift {task} --data FILE",
        ) from error
