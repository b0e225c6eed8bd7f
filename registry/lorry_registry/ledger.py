"""Which adapter belongs to which task: the source of truth that everything else only displays.

A task has one *head*, a small document that is replaced by compare-and-swap. The head carries the newest
event whole; events before it lie beside it, one file each, never changed. So one conditional write both
moves the champion and records why, and a kill between two writes loses nothing: the next writer first files
the event that the head still carries.

Layout in the store::

    tasks/<task>/head.json               {task, versions, champion, event, deleted}
    tasks/<task>/history/00000001.json   one event, linked to the one before by its digest

The head and each event name their task, so that a ledger that was copied to another name is refused.
"""

import contextlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

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
from lorry_registry.manifest import Digest
from lorry_registry.stores import Store, StoredDocument
from lorry_registry.task_document import suggest_name
from lorry_registry.task_spec import TASK_NAME

Action = Literal["register", "promote", "rollback", "delete", "restore", "collect"]


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
        action: ``register`` adds a version; ``promote`` and ``rollback`` move the champion only; ``delete``
            and ``restore`` concern the task; ``collect`` says that the files of old versions were removed.
        version: The version that it concerns: the champion that a deletion takes and a restoration brings
            back, or else the newest version; the newest of those that were collected.
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


class Deletion(_Document):
    """That a task was deleted, and what restoring it brings back."""

    at: datetime
    by: str
    reasons: tuple[str, ...]
    champion: Champion | None


class Head(_Document):
    """The present state of a task.

    Attributes:
        task: The task.
        versions: How many versions were registered.
        champion: The adapter that its name stands for; None while it is deleted.
        event: The newest event.
        deleted: Who deleted it, and when; None, and not written, unless it is deleted.
    """

    task: str
    versions: Annotated[int, Field(ge=0)]
    champion: Champion | None
    event: Event
    deleted: Deletion | None = None

    @model_serializer(mode="wrap")
    def _omit_no_deletion(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What an older Lorry wrote keeps its bytes, and what it can read is written as it would.
        return {key: value for key, value in serialize(self).items() if key != "deleted" or value is not None}


class Standing(NamedTuple):
    """How a task stands: who is its champion, and whether it is deleted."""

    champion: Champion | None
    deleted: Deletion | None


class TaskState:
    """A head and the tag under which it was read; None before the first version."""

    def __init__(self, task: str, head: Head | None, etag: str | None) -> None:
        self.task = task
        self.head = head
        self.etag = etag

    @property
    def champion(self) -> Champion | None:
        """The champion, if the task has one."""
        return self.head.champion if self.head else None

    @property
    def champion_version(self) -> int | None:
        """The champion's version, if the task has one."""
        return self.champion.version if self.champion else None

    @property
    def deleted(self) -> Deletion | None:
        """Who deleted the task, and when, if it is deleted."""
        return self.head.deleted if self.head else None


class Ledger:
    """The heads and histories of all tasks in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list_tasks(self) -> list[str]:
        """Return the names of the tasks that have a version, sorted."""
        # A person or a file browser may have put something else beside the tasks.
        names = [name for name in self._store.list_children("tasks") if re.fullmatch(TASK_NAME, name)]
        return [name for name in names if self._has_head(name)]

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
                todo=suggest_name(task, self.list_tasks()),
            )
        return state

    def read_history(self, task: str) -> list[Event]:
        """Return all events of a task, the oldest first, having checked that each names the one before.

        Raises:
            NotFoundError: No such task.
            StoreError: An event is missing, was changed, or is another task's.
        """
        state = self.require_state(task)
        assert state.head is not None
        events = [self._read_event(task, sequence) for sequence in range(1, state.head.event.sequence)]
        events.append(state.head.event)
        for earlier, later in zip([None, *events], events, strict=False):
            if later.previous != (earlier.digest if earlier else None):
                raise StoreError(
                    f"event {later.sequence} does not follow from the one before it: the history was changed",
                    where=self._store.locate(f"tasks/{task}/history"),
                    todo="restore the history from a backup before trusting this task",
                )
        self._check_champion(state, events)
        return events

    def _check_champion(self, state: TaskState, events: list[Event]) -> None:
        champion = state.champion
        named = (champion.version, champion.adapter_id) if champion else (None, None)
        if state.deleted is not None and find_deletion(events) is None:
            raise StoreError(
                "the head says that the task is deleted, and the history does not: it was changed",
                where=self._store.locate(_head_key(state.task)),
                todo="restore the head from a backup before trusting this task",
            )
        last = events[-1].champion_after
        registered = [event.adapter_id for event in events if event.action == "register"]
        known = last is None or 1 <= last <= len(registered)
        if not known or named != (last, None if last is None else registered[last - 1]):
            raise StoreError(
                "the head names a different champion from the history: it was changed",
                where=self._store.locate(_head_key(state.task)),
                todo="restore the head from a backup before trusting this task",
            )

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
        standing: Standing | None = None,
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
            standing: How the task stands afterwards; None: as ``promote`` says.

        Raises:
            ConflictError: The task changed since the state was read.
            StoreError: The store cannot be written; nothing was recorded, unless the message says that this
                is not known.
        """
        head = state.head
        if head is not None:
            # A writer that was killed after its swap may have left its event only in the head.
            self._store.create(_event_key(state.task, head.event.sequence), head.event.serialize())
        now = datetime.now(UTC)
        number = version if version is not None else (head.versions if head else 0) + 1
        if standing is None:
            promoted = Champion(version=number, adapter_id=adapter_id, promoted_at=now)
            standing = Standing(promoted if promote else state.champion, state.deleted)
        event = Event(
            sequence=head.event.sequence + 1 if head else 1,
            at=now,
            by=by,
            action=action,
            version=number,
            adapter_id=adapter_id,
            champion_before=state.champion_version,
            champion_after=standing.champion.version if standing.champion else None,
            reasons=reasons,
            details=details or {},
            previous=head.event.digest if head else None,
            task=state.task,
        )
        new_head = Head(
            task=state.task,
            versions=max(number, head.versions if head else 0),
            champion=standing.champion,
            event=event,
            deleted=standing.deleted,
        )
        try:
            self._store.compare_and_swap(_head_key(state.task), new_head.serialize(), state.etag)
        except (ConflictError, StoreError) as error:
            self._require_happened(state.task, event, error)
        # The move is done and recorded in the head. Filing its event may fail now: the next writer does it.
        with contextlib.suppress(StoreError):
            self._store.create(_event_key(state.task, event.sequence), event.serialize())
        return event

    def _require_happened(self, task: str, event: Event, error: ConflictError | StoreError) -> None:
        """Raise the error of a swap, unless it happened all the same and only its answer was lost.

        Another writer may have gone on from there, so the event is looked for in the history as well.
        """
        try:
            head = self.read_state(task).head
            newest = head.event if head else None
            if newest is not None and newest.sequence > event.sequence:
                newest = self._read_event(task, event.sequence)
        except StoreError as unreadable:
            raise StoreError(
                error.what,
                where=error.where,
                todo=f"it may have happened all the same: once the store answers, see lorry history {task}",
            ) from unreadable
        if newest != event:
            raise error

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


def find_deletion(events: Sequence[Event]) -> Event | None:
    """Return the event that deleted a task, or None if it was never deleted or was restored since."""
    moves = [event for event in events if event.action in ("delete", "restore")]
    return moves[-1] if moves and moves[-1].action == "delete" else None


def require_present(state: TaskState) -> None:
    """Raise unless a task can be used: it was not deleted, or was restored.

    Raises:
        NotFoundError: It was deleted; the message says when, by whom, why, and how to restore it.
    """
    deletion = state.deleted
    if deletion is not None:
        reasons = f": {'; '.join(deletion.reasons)}" if deletion.reasons else ""
        raise NotFoundError(
            f"the task was deleted on {deletion.at:%Y-%m-%d at %H:%M UTC} by {deletion.by}{reasons}",
            where=state.task,
            todo=f"lorry restore {state.task} brings it back",
        )


def require_unchanged(state: TaskState, judged: int | None) -> None:
    """Raise unless the champion is still the version that the gate compared with.

    Raises:
        ConflictError: Somebody promoted another version in between.
    """
    if state.champion_version != judged:
        raise ConflictError(
            f"the champion is now {name_version(state.champion_version)}, "
            f"but the gate compared with {name_version(judged)}",
            where=state.task,
            todo="run the task again, to compare with the present champion",
        )


def name_version(version: int | None) -> str:
    """Return a version's name in messages: ``v3``, or ``none``."""
    return "none" if version is None else f"v{version}"


def _head_key(task: str) -> str:
    return f"tasks/{task}/head.json"


def _event_key(task: str, sequence: int) -> str:
    return f"tasks/{task}/history/{sequence:08d}.json"
