"""The documents of the ledger: events, and the head that carries the newest one."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from lorry_registry.files.digests import canonical_json, digest_bytes, digest_document
from lorry_registry.manifest import FORMAT, Digest, FormatNumber
from lorry_registry.signing.event_signatures import EventSignature
from lorry_registry.signing.rollback_guard import SeenHead

Action = Literal["register", "promote", "rollback", "delete", "restore", "collect", "attest", "judge"]

RegistryId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class LedgerDocument(BaseModel):
    """A document whose canonical bytes are stored and hashed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def serialize(self) -> bytes:
        """Return the canonical bytes."""
        return canonical_json(self.model_dump(mode="json"))


class Champion(LedgerDocument):
    """The adapter that a task's name stands for.

    Attributes:
        version: Its version.
        adapter_id: Its id.
        promoted_at: When it became the champion.
        manifest: A copy of its manifest's bytes, so that a list of tasks needs one request for each; None for
            a large manifest.
    """

    version: int
    adapter_id: Digest
    promoted_at: datetime
    manifest: str | None = None

    @property
    def has_other_manifest(self) -> bool:
        """Whether the copy is not of the manifest that the id names."""
        return self.manifest is not None and digest_bytes(self.manifest.encode()) != self.adapter_id


class Event(LedgerDocument):
    """One thing that happened to a task.

    Attributes:
        sequence: Its place in the history, from 1.
        at: When, in UTC.
        by: Who or what did it.
        action: ``register`` adds a version; ``promote`` and ``rollback`` move the champion only; ``delete``
            and ``restore`` concern the task; ``collect`` says that the files of old versions were removed;
            ``attest`` changes nothing: its signature stands for all events before it; ``judge`` says that the
            gate refused a version once more, by other conditions.
        version: The version that it concerns: the champion that a deletion takes and a restoration brings
            back, or else the newest version; the newest of those that were collected; the champion that a
            rollback leaves without a successor.
        adapter_id: That version's adapter.
        champion_before: The champion's version before the event.
        champion_after: The champion's version after it.
        reasons: Why, in sentences.
        details: What else the history keeps: the gate's decision, the run.
        previous: The digest of the event before this one; None for the first.
        task: The task that it happened to.
        registry: The id of the registry.
        state: The digest of what the head says beside the event; None if the event is not signed.
        signature: Over the event's bytes without this field; None if it is not signed.
    """

    format: FormatNumber = FORMAT
    sequence: Annotated[int, Field(ge=1)]
    at: datetime
    by: str
    action: Action
    version: Annotated[int, Field(ge=1)]
    adapter_id: Digest
    champion_before: int | None
    champion_after: int | None
    reasons: tuple[str, ...]
    details: dict[str, JsonValue] = {}
    previous: Digest | None
    task: str
    registry: RegistryId
    state: Digest | None = None
    signature: EventSignature | None = None

    def serialize_unsigned(self) -> bytes:
        """Return the canonical bytes that a signature covers."""
        return self.model_copy(update={"signature": None}).serialize()

    @property
    def digest(self) -> str:
        """The digest that the next event names."""
        return digest_bytes(self.serialize())

    @property
    def is_promotion(self) -> bool:
        """Whether the champion is another one after this event."""
        return self.champion_before != self.champion_after


class Deletion(LedgerDocument):
    """That a task was deleted, and what restoring it brings back."""

    at: datetime
    by: str
    reasons: tuple[str, ...]
    champion: Champion | None


class Head(LedgerDocument):
    """The present state of a task.

    Attributes:
        task: The task.
        versions: How many versions were registered.
        champion: The adapter that its name stands for; None while it is deleted.
        event: The newest event.
        deleted: Who deleted it, and when; None unless it is deleted.
        registry: The id of the registry.
    """

    format: FormatNumber = FORMAT
    task: str
    versions: Annotated[int, Field(ge=0)]
    champion: Champion | None
    event: Event
    deleted: Deletion | None
    registry: RegistryId

    def remember(self) -> SeenHead:
        """Return what a machine keeps of it, to notice an older one later."""
        return SeenHead(registry=self.registry, sequence=self.event.sequence, event=self.event.digest)

    def digest_state(self) -> str:
        """Return the digest of everything beside the event, which a signed event names."""
        return digest_document(self.model_dump(mode="json", exclude={"event"}))
