"""The ledger of each task's adapters: the source of truth that everything else only displays.

A task has one *head*, a small document that is replaced by compare-and-swap. The head carries the newest
event whole; events before it lie beside it, one file each, never changed. So one conditional write both
moves the champion and records why, and a kill between two writes loses nothing: the next writer first files
the event that the head still carries.

Layout in the store::

    tasks/<task>/head.json               {task, versions, champion, event, deleted}
    tasks/<task>/history/00000001.json   one event, linked to the one before by its digest
    tasks/<task>/packs/00000100.jsonl    copies of a hundred events, so that a long history is read quickly
    tasks/<task>/claims/<hex>.json       written before an adapter gets a version: without one, it has none

The head and each event name their task and their registry, so that a ledger that was copied to another name,
or from another registry's store, is refused. Where events are signed, the signature covers the head as well:
see :mod:`lorry_registry.signing`.
"""

import contextlib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from pydantic import (
    JsonValue,
    ValidationError,
)

from lorry_registry.errors import ConflictError, NotFoundError, StoreError
from lorry_registry.ledger.claims import create_claim
from lorry_registry.ledger.events import Action, Champion, Deletion, Event, Head, LedgerDocument
from lorry_registry.ledger.packs import PACKED, list_blocks, pack_key, pack_lines, unpack_lines
from lorry_registry.ledger.registry_identity import RegistryIdentity
from lorry_registry.manifest import Manifest
from lorry_registry.signing.event_signatures import EventSignature
from lorry_registry.signing.trust import Trust
from lorry_registry.stores import Store, StoredDocument
from lorry_registry.stores.concurrency import map_concurrent
from lorry_registry.tasks.task_document import suggest_name
from lorry_registry.tasks.task_spec import TASK_NAME

_D = TypeVar("_D", bound=LedgerDocument)
# No larger manifest, in bytes, is copied into the head, which every reader of the task fetches.
_LARGEST_COPY = 32 << 10


class NextState(NamedTuple):
    """A task's champion after an update, and its deletion if it is deleted."""

    champion: Champion | None
    deleted: Deletion | None


class TaskState:
    """A head and the tag under which it was read; None before the first version."""

    def __init__(self, task: str, head: Head | None, etag: str | None) -> None:
        self.task = task
        self.head = head
        self.etag = etag
        # Adapters that were claimed for it since it was read.
        self.claimed: set[str] = set()
        # The events that led to it, once they were read: they never change.
        self.events: tuple[Event, ...] | None = None

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
    """The heads and histories of all tasks in a store.

    Args:
        store: The store.
        trust: Signs events, and judges those that are read; None: it does neither.
        identity: The id of the registry in the store, if the caller has read it.
    """

    def __init__(
        self, store: Store, *, trust: Trust | None = None, identity: RegistryIdentity | None = None
    ) -> None:
        self._store = store
        self._trust = trust or Trust()
        self._identity = identity or RegistryIdentity(store)

    def list_tasks(self) -> list[str]:
        """Return the names of the tasks that have a version, sorted."""
        names = self.list_names()
        found = map_concurrent(self._has_head, names, self._store.concurrency)
        return [name for name, has_head in zip(names, found, strict=True) if has_head]

    def list_names(self) -> list[str]:
        """Return the names under which there may be a task, sorted; no head is read for it."""
        # A person or a file browser may have put something else beside the tasks.
        return [name for name in self._store.list_children("tasks") if re.fullmatch(TASK_NAME, name)]

    def _has_head(self, task: str) -> bool:
        try:
            return self._store.read(_head_key(task)) is not None
        except StoreError:
            # Something is there: a reader of the task gets the error, and the other tasks are listed.
            return True

    def read_state(self, task: str) -> TaskState:
        """Return the present state of a task, which may have no version yet.

        Raises:
            StoreError: The head was changed, it is another task's or another registry's, or its signature
                is missing or wrong and signatures are required.
        """
        key = _head_key(task)
        # A process beside this one may see a newer head than the one that is read here.
        seen = self._trust.recall_head(self._store.address, task)
        stored = self._identity.read_beside(key)
        head = None if stored is None else self._check_head(self._parse(Head, stored, key), task, key)
        found = None if head is None else head.remember()
        self._trust.check_head(self._store.address, task, seen=seen, found=found)
        return TaskState(task, head, stored.etag if stored else None)

    def _check_head(self, head: Head, task: str, key: str) -> Head:
        for named in (head, head.event):
            self._check_task(named.task, task, key)
            self._check_registry(named.registry, task, key)
        if self._trust.is_checking:
            event, where = head.event, self._store.locate(key)
            self._trust.check_event(event.serialize_unsigned(), event.signature, task=task, where=where)
            if event.signature is not None and event.state != head.digest_state():
                self._trust.object_to_ledger(
                    "the head is not the one that its event was signed with: it was changed",
                    task=task,
                    where=where,
                )
        for champion in (head.champion, head.deleted.champion if head.deleted else None):
            if champion is not None and champion.has_other_manifest:
                raise StoreError(
                    "the head holds another manifest than its champion's: it was changed",
                    where=self._store.locate(key),
                    todo="restore the head from a backup before trusting this task",
                )
        return head

    def digest_head(self, task: str) -> str | None:
        """Return the digest of a task's head as it is stored, unchecked; None before the first version.

        It changes with each event.
        """
        return self._store.digest_key(_head_key(task))

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

        The state keeps them: a second call reads nothing.

        Raises:
            StoreError: An event is missing, was changed, or is another task's.
        """
        if state.head is None:
            return []
        if state.events is not None and packed:
            return list(state.events)
        task, last = state.task, state.head.event
        # A forged head may name any number, but no more is begun than the store's concurrency allows.
        copies = self._read_packs(task, last.sequence - 1) if packed else []
        after = range(len(copies) + 1, last.sequence)
        read = map_concurrent(
            lambda sequence: self._read_event(task, sequence), after, self._store.concurrency
        )
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
        self._check_signatures(state.task, events)
        state.events = tuple(events)
        return events

    def _check_signatures(self, task: str, events: list[Event]) -> None:
        """Judge the events after the last signed attestation, which stands for all events before it."""
        unsigned = (
            self._find_unsigned(events, self._trust.is_trusted_event) if self._trust.is_checking else None
        )
        if unsigned is not None:
            self._trust.object_to_ledger(
                f"event {unsigned.sequence} is not signed by a trusted key or identity",
                task=task,
                where=self._store.locate(f"tasks/{task}/history"),
            )

    def is_signed(self, head: Head, events: list[Event]) -> bool:
        """Return whether we or a trusted key signed a head, and all events that no attestation covers."""
        if head.event.state != head.digest_state():
            return False
        return self._find_unsigned(events, self._trust.vouches_for) is None

    def _find_unsigned(
        self, events: list[Event], is_signed: Callable[[bytes, EventSignature | None], bool]
    ) -> Event | None:
        for event in reversed(events):
            if not is_signed(event.serialize_unsigned(), event.signature):
                return event
            if event.action == "attest":
                break
        return None

    def _read_packs(self, task: str, count: int) -> list[Event]:
        """Return the first of a task's events, as far as packs hold copies of them."""

        def read_pack(block: range) -> list[Event]:
            # A pack that cannot be read or is none costs time and nothing else.
            with contextlib.suppress(StoreError):
                key = pack_key(task, block)
                stored = self._store.read(key)
                lines = unpack_lines(stored.content) if stored else []
                events = [self._parse(Event, StoredDocument(line, ""), key) for line in lines]
                if all(event.task == task for event in events):
                    return events
            return []

        copies: list[Event] = []
        for block, events in zip(
            list_blocks(count),
            map_concurrent(read_pack, list_blocks(count), self._store.concurrency),
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

    def claim_adapter(self, state: TaskState, adapter_id: str) -> bool:
        """Claim an adapter for a task, before it gets a version; return whether it surely has none yet.

        If it was claimed before, only the history tells: a writer may have been killed after its claim.

        Raises:
            StoreError: The store cannot be written.
        """
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
        next_state: NextState | None = None,
        manifest: Manifest | None = None,
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
            details: What else the history should keep.
            next_state: The task's state afterwards; None: as ``promote`` says.
            manifest: The adapter's manifest, of which a champion's head keeps a copy.

        Raises:
            ConflictError: The task changed since the state was read.
            StoreError: The store cannot be written; nothing was recorded, unless the message says that this
                is not known.
            UsageError: Signatures are required, and there is no key to sign with.
        """
        self._trust.check_ready()
        head = state.head
        if head is not None:
            # A writer that was killed after its swap may have left its event only in the head.
            self._store.create(_event_key(state.task, head.event.sequence), head.event.serialize())
        if version is None and adapter_id not in state.claimed:
            create_claim(self._store, state.task, adapter_id)
        now = datetime.now(UTC)
        number = version if version is not None else (head.versions if head else 0) + 1
        if next_state is None:
            promoted = Champion(
                version=number, adapter_id=adapter_id, promoted_at=now, manifest=_copy_small(manifest)
            )
            next_state = NextState(promoted if promote else state.champion, state.deleted)
        event = Event(
            sequence=head.event.sequence + 1 if head else 1,
            at=now,
            by=by,
            action=action,
            version=number,
            adapter_id=adapter_id,
            champion_before=state.champion_version,
            champion_after=next_state.champion.version if next_state.champion else None,
            reasons=reasons,
            details=details or {},
            previous=head.event.digest if head else None,
            task=state.task,
            registry=self._identity.ensure(),
        )
        new_head = Head(
            task=state.task,
            versions=max(number, head.versions if head else 0),
            champion=next_state.champion,
            event=event,
            registry=event.registry,
            deleted=next_state.deleted,
        )
        if self._trust.is_signing:
            event = self._sign(event, new_head)
            new_head = new_head.model_copy(update={"event": event})
        try:
            self._store.compare_and_swap(_head_key(state.task), new_head.serialize(), state.etag)
        except (ConflictError, StoreError) as error:
            self._require_happened(state.task, event, error)
        # The move is done and recorded in the head. Filing its event may fail now: the next writer does it.
        with contextlib.suppress(StoreError):
            self._store.create(_event_key(state.task, event.sequence), event.serialize())
        if event.sequence % PACKED == 0:
            # A writer that is killed here leaves no pack, which the next one to come here writes.
            with contextlib.suppress(StoreError, ConflictError):
                self._pack_history(state.task)
        return event

    def _sign(self, event: Event, head: Head) -> Event:
        named = event.model_copy(update={"state": head.digest_state()})
        signature = self._trust.sign_event(named.serialize_unsigned())
        return named.model_copy(update={"signature": signature})

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
        self._check_registry(event.registry, task, key)
        return event

    def _check_task(self, named: str, task: str, key: str) -> None:
        if named != task:
            raise StoreError(
                f"this is the ledger of the task {named!r}: it was copied or moved",
                where=self._store.locate(key),
                todo=f"remove the folder tasks/{task} from the store, or restore it from a backup",
            )

    def _check_registry(self, named: str, task: str, key: str) -> None:
        own = self._identity.read()
        if named == own:
            return
        what = (
            f"this is a ledger of the registry {named}, and the store is the registry {own}: it was copied "
            "from another store"
            if own
            else f"this is a ledger of the registry {named}, and the store has no registry.json: only a part "
            "of a store was copied"
        )
        raise StoreError(
            what,
            where=self._store.locate(key),
            todo=f"remove the folder tasks/{task} from the store and register its adapters here; to move a "
            "registry, copy its whole store, with registry.json",
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
    changes = [event for event in events if event.action in ("delete", "restore")]
    return changes[-1] if changes and changes[-1].action == "delete" else None


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
        ConflictError: Another process promoted another version in between.
    """
    if state.champion_version != judged:
        raise ConflictError(
            f"the champion is now {name_version(state.champion_version)}, "
            f"but the gate compared with {name_version(judged)}",
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


def name_version(version: int | None) -> str:
    """Return a version's name in messages: ``v3``, or ``none``."""
    return "none" if version is None else f"v{version}"


def _copy_small(manifest: Manifest | None) -> str | None:
    content = manifest.serialize() if manifest else b""
    return content.decode() if 0 < len(content) <= _LARGEST_COPY else None


def _head_key(task: str) -> str:
    return f"tasks/{task}/head.json"


def _event_key(task: str, sequence: int) -> str:
    return f"tasks/{task}/history/{sequence:08d}.json"
