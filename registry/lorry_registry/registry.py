"""The one class that most users need: from tasks to adapters, from adapters to files.

Writing an adapter is three steps in this order: its files, then its manifest (from here on it exists), then
the ledger's event (from here on a task has it). A kill in between leaves files that nothing refers to, which
:mod:`~lorry_registry.maintenance.collection` removes later; leases keep it from what is still being written
or read.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from lorry_registry.adapters.adapter_cache import AdapterCache
from lorry_registry.adapters.stored_adapters import StoredAdapters, adapter_hex, adapter_key
from lorry_registry.errors import AdapterRejectedError, ConflictError, LorryError, NotFoundError
from lorry_registry.leases.content_leases import Leases
from lorry_registry.ledger.alpha_spending import CHALLENGE_DETAIL, Challenge, count_challengers
from lorry_registry.ledger.events import Action, Champion, Deletion, Event, Head
from lorry_registry.ledger.ledger import Ledger, NextState, TaskState, require_present, require_unchanged
from lorry_registry.ledger.promotion import (
    Version,
    explain_collection,
    explain_no_champion,
    find_collection,
    find_rollback_version,
    find_version,
    list_versions,
)
from lorry_registry.ledger.registry_identity import RegistryIdentity
from lorry_registry.ledger.updates import LedgerUpdate, RequireSameChampion, update
from lorry_registry.manifest import Manifest
from lorry_registry.records.row_fingerprints import read_fingerprints
from lorry_registry.records.training_record import read_card
from lorry_registry.settings import DEFAULT_CACHE_BYTES, Settings
from lorry_registry.signing.trust import Trust
from lorry_registry.stores import Store, open_store
from lorry_registry.stores.concurrency import map_concurrent
from lorry_registry.text.users import name_user


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """A task and the adapter that its name stands for.

    Attributes:
        task: The task.
        champion: Its champion, if it has one.
        versions: How many versions were registered.
        manifest: The champion's manifest.
        newest: The newest event.
        deleted: Who deleted the task, and when; None unless it is deleted.
    """

    task: str
    champion: Champion | None
    versions: int
    manifest: Manifest | None
    newest: Event
    deleted: Deletion | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """Where the adapter of a task is.

    Attributes:
        task: The task.
        version: The version that was asked for, or the champion's.
        adapter_id: ``sha256:<hex>``.
        manifest: The adapter's manifest.
        uri: The address of the adapter in the store.
        path: Its folder on this machine, when the store is local.
        promoted_at: When it became the champion, if it is.
    """

    task: str
    version: int
    adapter_id: str
    manifest: Manifest
    uri: str
    path: Path | None
    promoted_at: datetime | None


class Registry:
    """Which adapter belongs to which task, over one store.

    Args:
        store: Where adapters and ledgers are.
        cache: A folder for verified copies of adapters, by content.
        trust: Signs what is written and judges what is read; None: it does neither.
        cache_bytes: How large the cache may become.
    """

    def __init__(
        self,
        store: Store,
        cache: Path,
        *,
        trust: Trust | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        self.store = store
        self.trust = trust or Trust()
        self._identity = RegistryIdentity(store)
        self.ledger = Ledger(store, trust=self.trust, identity=self._identity)
        self.leases = Leases(store)
        self.adapters = StoredAdapters(
            store, AdapterCache(cache, limit=cache_bytes), trust=self.trust, leases=self.leases
        )

    @classmethod
    def open(cls, settings: Settings, store: Store | None = None) -> "Registry":
        """Return the registry that the settings name.

        Args:
            settings: Where things are, and which signatures are demanded.
            store: The store, if it is another one than the settings name.
        """
        return cls(
            store or open_store(settings.store, settings.s3),
            settings.adapters,
            trust=Trust(settings.signing, settings.seen_heads),
            cache_bytes=settings.cache_bytes,
        )

    @property
    def registry_id(self) -> str:
        """The id of this registry, which is created in the store when it is asked for first.

        Raises:
            StoreError: The store cannot be read or written, or the id was changed.
        """
        return self._identity.ensure()

    # Reading

    def list_tasks(self) -> list[TaskEntry]:
        """Return every task with its champion, sorted by name; tasks that were deleted are left out.

        Raises:
            LorryError: That of the first task that is damaged.
        """
        entries = []
        for entry in self.survey_tasks():
            if isinstance(entry, LorryError):
                raise entry
            if entry.deleted is None:
                entries.append(entry)
        return entries

    def survey_tasks(self) -> Iterator[TaskEntry | LorryError]:
        """Yield every task with its champion, deleted ones too, or what is wrong with it, sorted by name.

        A task costs one request, or two if its champion's manifest is large; as many run at once as the
        store's concurrency allows.
        """
        surveyed = map_concurrent(self._survey_task, self.ledger.list_names(), self.store.concurrency)
        return (entry for entry in surveyed if entry is not None)

    def _survey_task(self, task: str) -> TaskEntry | LorryError | None:
        try:
            state = self.ledger.read_state(task)
            return None if state.head is None else self._describe_state(state, state.head)
        except LorryError as error:
            # The other tasks are not hidden by it.
            return error

    def describe_task(self, task: str) -> TaskEntry:
        """Return a task with its champion, and say whether it is deleted.

        Raises:
            NotFoundError: No such task.
            AdapterRejectedError: The champion's manifest was changed, or is another task's.
        """
        state = self.ledger.require_state(task)
        assert state.head is not None
        return self._describe_state(state, state.head)

    def _describe_state(self, state: TaskState, head: Head) -> TaskEntry:
        champion = state.champion
        return TaskEntry(
            task=state.task,
            champion=champion,
            versions=head.versions,
            manifest=self._describe_champion(state.task, champion) if champion else None,
            newest=head.event,
            deleted=state.deleted,
        )

    def _describe_champion(self, task: str, champion: Champion) -> Manifest:
        if champion.manifest is None:
            return self._read_manifest_of(task, champion.adapter_id)
        where = self.store.locate(f"tasks/{task}")
        return _require_task(Manifest.parse(champion.manifest.encode(), where=where), task)

    def list_versions(self, task: str) -> list[Version]:
        """Return the versions of a task, the oldest first; none when the task is unknown."""
        return list_versions(self.ledger.read_events(self.ledger.read_state(task)))

    def resolve(self, task: str, version: int | None = None) -> Resolution:
        """Return where the champion of a task is, or one version of it.

        Raises:
            NotFoundError: No such task or version, no champion yet, the task was deleted, or the version's
                files were collected.
            AdapterRejectedError: The adapter's manifest was changed, or is another task's.
        """
        state = self.ledger.require_state(task)
        require_present(state)
        champion = state.champion
        if version is None and champion is None:
            raise explain_no_champion(self.ledger.read_events(state), task=task)
        if champion is not None and version in (None, champion.version):
            number, adapter_id = champion.version, champion.adapter_id
        else:
            assert version is not None
            chosen = find_version(self.ledger.read_events(state), version, task=task)
            number, adapter_id = chosen.number, chosen.adapter_id
        key = adapter_key(adapter_id)
        is_champion = champion is not None and champion.version == number
        return Resolution(
            task=task,
            version=number,
            adapter_id=adapter_id,
            manifest=self._require_manifest(task, number, adapter_id),
            uri=self.store.locate(key),
            path=self.store.find_path(key),
            promoted_at=champion.promoted_at if champion and is_champion else None,
        )

    def read_version(self, task: str, version: int, adapter_id: str) -> Manifest | None:
        """Return the manifest of a version, or None if the history says that its files were collected.

        Raises:
            NotFoundError: There is none, and nothing says why.
            AdapterRejectedError: The stored manifest was changed, or is another task's.
        """
        try:
            return self._read_manifest_of(task, adapter_id)
        except NotFoundError:
            if find_collection(self.ledger.read_history(task), version) is None:
                raise
            return None

    def is_collected(self, task: str, version: Version) -> bool:
        """Return whether the files of a version were collected, and not published again since."""
        try:
            return self.read_version(task, version.number, version.adapter_id) is None
        except NotFoundError:
            return False

    def read_manifest(self, adapter_id: str) -> Manifest:
        """Return the manifest of an adapter, as :meth:`StoredAdapters.read_manifest` does."""
        return self.adapters.read_manifest(adapter_id)

    def fetch(self, adapter_id: str) -> Path:
        """Return a verified local folder of an adapter, as :meth:`StoredAdapters.fetch` does."""
        return self.adapters.fetch(adapter_id)

    def export(self, adapter_id: str, target: Path, *, sidecars: Sequence[str] = ()) -> Manifest:
        """Copy an adapter to a new folder, as :meth:`StoredAdapters.export` does."""
        return self.adapters.export(adapter_id, target, sidecars=sidecars)

    def verify_task(self, task: str) -> Iterator[tuple[Version, LorryError | None]]:
        """Re-hash every version of a task in the store; yield each with what is wrong with it, or None.

        A version whose files were collected comes with the NotFoundError that says so.

        Raises:
            StoreError: The task's history was changed.
        """
        # Each event is looked at in its own place, and not in copies.
        for version in list_versions(self.ledger.read_history(task, packed=False)):
            try:
                self.check_version(task, version.number, version.adapter_id)
                self._verify_sidecars(task, version)
            except LorryError as error:
                yield version, error
            else:
                yield version, None

    def check_version(self, task: str, version: int, adapter_id: str) -> Manifest:
        """Re-hash the files of a version in the store, and return its manifest.

        Raises:
            AdapterRejectedError: They are damaged.
            NotFoundError: There are none, or they were collected.
        """
        self._require_manifest(task, version, adapter_id)
        manifest = self.hash_stored(task, adapter_id)
        self.adapters.check_signatures(manifest)
        return manifest

    # Writing

    def publish(self, folder: Path, manifest: Manifest) -> str:
        """Put an adapter into the store, as :meth:`StoredAdapters.publish` does."""
        return self.adapters.publish(folder, manifest)

    def register(
        self,
        task: str,
        adapter_id: str,
        *,
        promote: bool,
        judged_champion: int | None,
        reasons: Sequence[str],
        details: dict[str, JsonValue] | None = None,
        by: str | None = None,
        challenge: Challenge | None = None,
        is_renewed: bool = False,
    ) -> Event:
        """Give an adapter the next version of its task, and make it the champion if it passed.

        An adapter that has a version keeps it. Registering it again changes nothing and returns its event,
        unless it passes now and never was the champion: then that version is promoted.

        Args:
            task: The task.
            adapter_id: A published adapter.
            promote: Whether the gate let it pass.
            judged_champion: The champion's version that the gate compared it with.
            reasons: The gate's reasons.
            details: What else the history should keep.
            by: Who acts; the user's name by default.
            challenge: That it was tested against the champion. It becomes the champion only if it passes by
                the number of challengers that the ledger knows at the moment of writing.
            is_renewed: Whether a version that was refused has been judged once more: a second refusal is
                recorded then.

        Raises:
            ConflictError: ``promote``, and the champion is no longer the one that was judged.
            NotFoundError: The adapter was not published, or the task was deleted.
            AdapterRejectedError: The adapter was trained for another task, or has no signature that is
                trusted although signatures are required.
        """
        actor = by or name_user()
        kept = {**(details or {}), **({CHALLENGE_DETAIL: challenge.describe()} if challenge else {})}
        with self.leases.hold(adapter_hex(adapter_id)):
            manifest = self._read_manifest_of(task, adapter_id)
            self.adapters.check_signatures(manifest)

            def decide(state: TaskState) -> LedgerUpdate | Event:
                require_present(state)
                is_new = self.ledger.claim_adapter(state, adapter_id)
                events = [] if is_new else self.ledger.read_events(state)
                versions = list_versions(events)
                known = next((entry for entry in versions if entry.adapter_id == adapter_id), None)
                if known and any(event.champion_after == known.number for event in events):
                    return known.registered
                passes, why = promote, tuple(reasons)
                if promote:
                    require_unchanged(state, judged_champion)
                if promote and challenge is not None:
                    earlier = count_challengers(
                        self.ledger.read_events(state),
                        challenge.champion,
                        challenge.test_rows,
                        besides=adapter_id,
                    )
                    passes, why = challenge.judge(earlier)
                if known and not passes and not is_renewed:
                    return known.registered
                again: Action = "promote" if passes else "judge"
                return LedgerUpdate(
                    again if known else "register",
                    adapter_id,
                    known.number if known else None,
                    passes,
                    actor,
                    why,
                    kept,
                    manifest,
                )

            return update(self.ledger, task, decide, may_be_first=True)

    def promote(self, task: str, version: int, *, reason: str, by: str | None = None) -> Event:
        """Make a version the champion.

        Raises:
            NotFoundError: No such task or version, the task was deleted, or the version's files were
                collected.
            ConflictError: It is the champion already, or the champion was changed meanwhile.
            AdapterRejectedError: The stored adapter is damaged.
        """

        def choose(state: TaskState) -> Version:
            chosen = find_version(self.ledger.read_events(state), version, task=task)
            if state.champion_version == version:
                raise ConflictError(
                    "it is already the champion", where=f"{task} v{version}", todo="name another version"
                )
            return chosen

        return self._change_champion(task, "promote", choose, reason, by)

    def rollback(self, task: str, *, reason: str, by: str | None = None) -> Event:
        """Make the previous champion the champion again.

        Raises:
            NotFoundError: No such task, no earlier champion, the task was deleted, or the files of that
                champion were collected.
            ConflictError: The champion was changed meanwhile.
            AdapterRejectedError: The stored adapter is damaged.
        """

        def choose(state: TaskState) -> Version:
            events = self.ledger.read_events(state)
            return find_version(events, find_rollback_version(events, task=task), task=task)

        return self._change_champion(task, "rollback", choose, reason, by)

    def withdraw(self, task: str, *, reason: str, by: str | None = None) -> Event:
        """Leave a task without a champion; its versions stay registered, and can be promoted again.

        Raises:
            NotFoundError: No such task, it has no champion, or it was deleted.
            ConflictError: The champion was changed meanwhile.
        """
        self.trust.check_ready()
        actor = by or name_user()
        require_same = RequireSameChampion()

        def decide(state: TaskState) -> LedgerUpdate:
            require_present(state)
            require_same(state)
            champion = state.champion
            if champion is None:
                raise explain_no_champion(self.ledger.read_events(state), task=task)
            nothing = NextState(None, state.deleted)
            return LedgerUpdate(
                "rollback", champion.adapter_id, champion.version, False, actor, (reason,), next_state=nothing
            )

        return update(self.ledger, task, decide)

    def _change_champion(
        self,
        task: str,
        action: Literal["promote", "rollback"],
        choose: Callable[[TaskState], Version],
        reason: str,
        by: str | None,
    ) -> Event:
        self.trust.check_ready()
        actor = by or name_user()
        require_same = RequireSameChampion()
        verified: dict[int, Manifest] = {}

        def decide(state: TaskState) -> LedgerUpdate:
            require_present(state)
            require_same(state)
            version = choose(state)
            if version.number not in verified:
                held.enter_context(self.leases.hold(adapter_hex(version.adapter_id)))
                verified[version.number] = self.check_version(task, version.number, version.adapter_id)
            manifest = verified[version.number]
            return LedgerUpdate(
                action, version.adapter_id, version.number, True, actor, (reason,), manifest=manifest
            )

        with contextlib.ExitStack() as held:
            return update(self.ledger, task, decide)

    def _require_manifest(self, task: str, version: int, adapter_id: str) -> Manifest:
        manifest = self.read_version(task, version, adapter_id)
        if manifest is None:
            raise explain_collection(self.ledger.read_history(task), version, task=task)
        return manifest

    def _read_manifest_of(self, task: str, adapter_id: str) -> Manifest:
        return _require_task(self.read_manifest(adapter_id), task)

    def hash_stored(self, task: str, adapter_id: str) -> Manifest:
        """Re-hash an adapter in the store without a look at signatures, and return its manifest.

        Raises:
            AdapterRejectedError: It is damaged, or another task's.
            NotFoundError: There is no such adapter.
        """
        manifest = self._read_manifest_of(task, adapter_id)
        self.adapters.hash_files(manifest)
        return manifest

    def _verify_sidecars(self, task: str, version: Version) -> None:
        from lorry_registry.records.provenance import find_provenance, read_provenance

        manifest = self._read_manifest_of(task, version.adapter_id)
        digest = find_provenance(version.registered)
        if digest is not None:
            read_provenance(self.store, manifest, digest)
        read_fingerprints(self.store, manifest)
        read_card(self.store, manifest, version.registered)


def _require_task(manifest: Manifest, task: str) -> Manifest:
    if manifest.task != task:
        raise AdapterRejectedError(
            f"{manifest.adapter_id} was trained for {manifest.task!r}",
            where=task,
            todo="register it under its own task",
        )
    return manifest
