"""Which adapter belongs to which task: the source of truth that everything else only displays.

A task has one *head*, a small document that is replaced by compare-and-swap. The head carries the newest
event whole; events before it lie beside it, one file each, never changed. So one conditional write both
moves the champion and records why, and a kill between two writes loses nothing: the next writer first files
the event that the head still carries.

Layout in the store::

    tasks/<task>/head.json               {sequence, versions, champion, event}
    tasks/<task>/history/00000001.json   one event, linked to the one before by its digest
    tasks/<task>/packs/00000100.jsonl    copies of a hundred events, so that a long history is read quickly
    tasks/<task>/claims/<hex>.json       written before an adapter gets a version: without one, it has none

The head and each event name their task, so that a ledger that was copied to another name is refused.
"""

import contextlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from lorry_registry.digests import canonical_json, digest_bytes
from lorry_registry.errors import ConflictError, NotFoundError, StoreError
from lorry_registry.ledger_claims import create_claim
from lorry_registry.ledger_packs import PACKED, list_blocks, pack_key, pack_lines, unpack_lines
from lorry_registry.manifest import Digest
from lorry_registry.stores import Store, StoredDocument
from lorry_registry.stores.lanes import map_in_lanes
from lorry_registry.task_document import suggest_name
from lorry_registry.task_spec import TASK_NAME

Action = Literal["register", "promote", "rollback"]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def serialize(self) -> bytes:
        """Return the canonical bytes."""
        return canonical_json(self.model_dump(mode="json"))


_D = TypeVar("_D", bound=_Document)


class Champion(_Document):
    """The adapter that a task's name stands for."""

    version: int
    adapter_id: Digest
    promoted_at: datetime


class Event(_Document):
    """One thing that happened to a task.

    Attributes:
        sequence: Its place in the history, from 1.
        at: When, in UTC.
        by: Who or what did it.
        action: ``register`` adds a version; ``promote`` and ``rollback`` move the champion only.
        version: The version that it concerns.
        adapter_id: That version's adapter.
        champion_before: The champion's version before the event.
        champion_after: The champion's version after it.
        reasons: Why, in sentences.
        details: Whatever else the history keeps: the gate's decision, the run.
        previous: The digest of the event before this one; None for the first.
        task: The task that it happened to; None in the events of an older Lorry, which did not say.
    """

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
    task: str | None = None

    @model_serializer(mode="wrap")
    def _omit_unknown_task(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # An older event keeps its bytes, and with them its digest.
        return {key: value for key, value in serialize(self).items() if key != "task" or value is not None}

    @property
    def digest(self) -> str:
        """The digest that the next event names."""
        return digest_bytes(self.serialize())

    @property
    def is_promotion(self) -> bool:
        """Whether the champion is another one after this event."""
        return self.champion_before != self.champion_after


class Head(_Document):
    """The present state of a task.

    Attributes:
        task: The task.
        versions: How many versions it has.
        champion: The adapter that its name stands for.
        event: The newest event.
        claimed: Whether there is a claim for each of its versions; not so in the heads of an older Lorry.
    """

    task: str
    versions: Annotated[int, Field(ge=0)]
    champion: Champion | None
    event: Event
    claimed: bool = False

    @model_serializer(mode="wrap")
    def _omit_unclaimed(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if key != "claimed" or value}


class TaskState:
    """A head and the tag under which it was read; None before the first version."""

    def __init__(self, task: str, head: Head | None, etag: str | None) -> None:
        self.task = task
        self.head = head
        self.etag = etag
        # Adapters that were claimed on top of claims for all versions.
        self.claimed: set[str] = set()

    @property
    def champion(self) -> Champion | None:
        """The champion, if the task has one."""
        return self.head.champion if self.head else None

    @property
    def champion_version(self) -> int | None:
        """The champion's version, if the task has one."""
        return self.champion.version if self.champion else None


class Ledger:
    """The heads and histories of all tasks in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list_tasks(self) -> list[str]:
        """Return the names of the tasks that have a version, sorted."""
        names = self.list_names()
        found = map_in_lanes(self._has_head, names, self._store.lanes)
        return [name for name, has_head in zip(names, found, strict=True) if has_head]

    def list_names(self) -> list[str]:
        """Return the names under which there may be a task, sorted; no head is read for it."""
        # A person or a file browser may have put something else beside the tasks.
        return [name for name in self._store.list_children("tasks") if re.fullmatch(TASK_NAME, name)]

    def _has_head(self, task: str) -> bool:
        try:
            return self._store.read(_head_key(task)) is not None
        except StoreError:
            # Something is there: whoever reads the task is told what, and the other tasks are listed.
            return True

    def read_state(self, task: str) -> TaskState:
        """Return the present state of a task, which may have no version yet.

        Raises:
            StoreError: The head was changed, or it is another task's.
        """
        key = _head_key(task)
        stored = self._store.read(key)
        if stored is None:
            return TaskState(task, None, None)
        head = self._parse(Head, stored, key)
        self._check_task(head.task, task, key)
        self._check_task(head.event.task, task, key)
        return TaskState(task, head, stored.etag)

    def require_state(self, task: str) -> TaskState:
        """Return the present state of a task that has at least one version.

        Raises:
            NotFoundError: There is no such task; a similar name is suggested.
        """
        state = self.read_state(task) if re.fullmatch(TASK_NAME, task) else TaskState(task, None, None)
        if state.head is None:
            raise NotFoundError(
                f"there is no task {task!r}",
                where=self._store.address,
                todo=suggest_name(task, self.list_names()),
            )
        return state

    def read_history(self, task: str, *, packed: bool = True) -> list[Event]:
        """Return all events of a task, the oldest first, having checked that each names the one before.

        Args:
            task: The task.
            packed: Whether copies of many events at once may stand for them. What is read is checked either
                way; only without them is it known that each event still lies in its own place.

        Raises:
            NotFoundError: No such task.
            StoreError: An event is missing, was changed, or is another task's.
        """
        return self.read_events(self.require_state(task), packed=packed)

    def read_events(self, state: TaskState, *, packed: bool = True) -> list[Event]:
        """Return the events that led to a state, as :meth:`read_history` does; none before the first version.

        Raises:
            StoreError: An event is missing, was changed, or is another task's.
        """
        if state.head is None:
            return []
        task, last = state.task, state.head.event
        # Whatever number a forged head names, no more is begun than there are lanes for.
        copies = self._read_packs(task, last.sequence - 1) if packed else []
        after = range(len(copies) + 1, last.sequence)
        read = map_in_lanes(lambda sequence: self._read_event(task, sequence), after, self._store.lanes)
        events = [*copies, *read, last]
        broken = _find_break(events)
        if broken and copies:
            # Packs are copies: what they hold counts only where it fits.
            return self.read_events(state, packed=False)
        if broken:
            raise StoreError(
                f"event {broken.sequence} does not follow from the one before it: the history was changed",
                where=self._store.locate(f"tasks/{task}/history"),
                todo="restore the history from a backup before trusting this task",
            )
        self._check_champion(state, events)
        return events

    def _read_packs(self, task: str, count: int) -> list[Event]:
        """Return the first of a task's events, as far as packs hold copies of them."""

        def read_pack(block: range) -> list[Event]:
            # A pack that cannot be read or is none costs time and nothing else.
            with contextlib.suppress(StoreError):
                key = pack_key(task, block)
                stored = self._store.read(key)
                lines = unpack_lines(stored.content) if stored else []
                events = [self._parse(Event, StoredDocument(line, ""), key) for line in lines]
                if all(event.task in (None, task) for event in events):
                    return events
            return []

        copies: list[Event] = []
        for block, events in zip(
            list_blocks(count),
            map_in_lanes(read_pack, list_blocks(count), self._store.lanes),
            strict=False,
        ):
            if [event.sequence for event in events] != [*block]:
                break
            copies.extend(events)
        return copies

    def _pack_history(self, task: str) -> None:
        events = self.read_history(task)
        existing = set(self._store.list_children(f"tasks/{task}/packs"))
        for block in list_blocks(len(events)):
            key = pack_key(task, block)
            if key.rpartition("/")[2] not in existing:
                self._store.create(
                    key, pack_lines(event.serialize() for event in events[block.start - 1 : block.stop - 1])
                )

    def _check_champion(self, state: TaskState, events: list[Event]) -> None:
        champion = state.champion
        named = (champion.version, champion.adapter_id) if champion else (None, None)
        last = events[-1].champion_after
        registered = [event.adapter_id for event in events if event.action == "register"]
        known = last is None or 1 <= last <= len(registered)
        if not known or named != (last, None if last is None else registered[last - 1]):
            raise StoreError(
                "the head names a different champion from the history: it was changed",
                where=self._store.locate(_head_key(state.task)),
                todo="restore the head from a backup before trusting this task",
            )

    def claim_adapter(self, state: TaskState, adapter_id: str) -> bool:
        """Claim an adapter for a task, before it gets a version; return whether it surely has none yet.

        If it was claimed before, only the history tells: a writer may have been killed after its claim.

        Raises:
            StoreError: The store cannot be written, or the history of an older Lorry was changed.
        """
        if state.head is not None and not state.head.claimed:
            for event in self.read_events(state):
                if event.action == "register":
                    create_claim(self._store, state.task, event.adapter_id)
        state.claimed.add(adapter_id)
        return create_claim(self._store, state.task, adapter_id)

    def append(
        self,
        state: TaskState,
        *,
        action: Action,
        adapter_id: str,
        version: int | None,
        promote: bool,
        by: str,
        reasons: tuple[str, ...],
        details: dict[str, JsonValue] | None = None,
    ) -> Event:
        """Record an event and move the champion in one step.

        Args:
            state: The state that the decision was made on; the write fails if it has changed since.
            action: What happens.
            adapter_id: The adapter that it concerns.
            version: Its version; None means the next one.
            promote: Whether it becomes the champion.
            by: Who or what acts.
            reasons: Why, in sentences.
            details: Whatever else the history should keep.

        Raises:
            ConflictError: The task changed since the state was read.
        """
        head = state.head
        if head is not None:
            # A writer that was killed after its swap may have left its event only in the head.
            self._store.create(_event_key(state.task, head.event.sequence), head.event.serialize())
        now = datetime.now(UTC)
        number = version if version is not None else (head.versions if head else 0) + 1
        event = Event(
            sequence=head.event.sequence + 1 if head else 1,
            at=now,
            by=by,
            action=action,
            version=number,
            adapter_id=adapter_id,
            champion_before=state.champion_version,
            champion_after=number if promote else state.champion_version,
            reasons=reasons,
            details=details or {},
            previous=head.event.digest if head else None,
            task=state.task,
        )
        champion = (
            Champion(version=number, adapter_id=adapter_id, promoted_at=now) if promote else state.champion
        )
        new_head = Head(
            task=state.task,
            versions=max(number, head.versions if head else 0),
            champion=champion,
            event=event,
            claimed=adapter_id in state.claimed or bool(head and head.claimed and version is not None),
        )
        self._store.compare_and_swap(_head_key(state.task), new_head.serialize(), state.etag)
        # The move is done and recorded in the head. Filing its event may fail now: the next writer does it.
        with contextlib.suppress(StoreError):
            self._store.create(_event_key(state.task, event.sequence), event.serialize())
        if event.sequence % PACKED == 0:
            # A writer that is killed here leaves no pack, which the next one to come here writes.
            with contextlib.suppress(StoreError, ConflictError):
                self._pack_history(state.task)
        return event

    def _read_event(self, task: str, sequence: int) -> Event:
        key = _event_key(task, sequence)
        stored = self._store.read(key)
        if stored is None:
            raise StoreError(
                f"event {sequence} of the history is missing",
                where=self._store.locate(key),
                todo="restore the history from a backup before trusting this task",
            )
        event = self._parse(Event, stored, key)
        self._check_task(event.task, task, key)
        return event

    def _check_task(self, named: str | None, task: str, key: str) -> None:
        if named not in (None, task):
            raise StoreError(
                f"this is the ledger of the task {named!r}: it was copied or moved",
                where=self._store.locate(key),
                todo=f"remove the folder tasks/{task} from the store, or restore it from a backup",
            )

    def _parse(self, document: type[_D], stored: StoredDocument, key: str) -> _D:
        try:
            parsed = document.model_validate_json(stored.content)
            # A NaN, a huge number or half a surrogate pair in the details: no canonical form has them.
            parsed.serialize()
        except ValueError as error:
            problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise StoreError(
                f"not a ledger document that this version of lorry can read: {problem}",
                where=self._store.locate(key),
                todo="restore it from a backup, or upgrade lorry",
            ) from error
        return parsed


def require_unchanged(state: TaskState, judged: int | None) -> None:
    """Raise unless the champion is still the version that the gate compared with.

    Raises:
        ConflictError: Somebody promoted another version in between.
    """
    if state.champion_version != judged:
        raise ConflictError(
            f"the champion is now {_name_version(state.champion_version)}, "
            f"but the gate compared with {_name_version(judged)}",
            where=state.task,
            todo="run the task again, to compare with the present champion",
        )


def _find_break(events: Sequence[Event]) -> Event | None:
    """Return the first event that does not name the one before it."""
    previous = None
    for event in events:
        if event.previous != previous:
            return event
        previous = event.digest
    return None


def _name_version(version: int | None) -> str:
    return "none" if version is None else f"v{version}"


def _head_key(task: str) -> str:
    return f"tasks/{task}/head.json"


def _event_key(task: str, sequence: int) -> str:
    return f"tasks/{task}/history/{sequence:08d}.json"
