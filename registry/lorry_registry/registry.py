"""The one class that most users need: from tasks to adapters, from adapters to files.

Writing an adapter is three steps in this order: its files, then its manifest (from here on it exists), then
the ledger's event (from here on a task has it). A kill in between leaves files that nothing refers to, which
:mod:`~lorry_registry.collection` removes later; leases keep it from what is still being written or read.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from lorry_registry.adapter_cache import AdapterCache
from lorry_registry.digests import digest_bytes
from lorry_registry.errors import AdapterRejectedError, ConflictError, LorryError, NotFoundError, StoreError
from lorry_registry.leases import Leases
from lorry_registry.ledger import (
    Champion,
    Deletion,
    Event,
    Head,
    Ledger,
    TaskState,
    require_present,
    require_unchanged,
)
from lorry_registry.ledger_moves import Move, record_move, require_same_champion
from lorry_registry.manifest import MANIFEST_NAME, Manifest
from lorry_registry.promotion import (
    Version,
    explain_collection,
    find_collection,
    find_rollback_version,
    find_version,
    list_versions,
)
from lorry_registry.registry_identity import RegistryIdentity
from lorry_registry.settings import DEFAULT_CACHE_BYTES, Settings
from lorry_registry.signing.adapter_signatures import COMPANION_FOLDERS
from lorry_registry.signing.attestations import StoredSignatures, copy_companions
from lorry_registry.signing.trust import Trust
from lorry_registry.stores import Store, open_store
from lorry_registry.stores.lanes import map_in_lanes
from lorry_registry.users import name_user
from lorry_registry.verification import check_files, verify_adapter


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """A task and the adapter that its name stands for.

    Attributes:
        task: The task.
        champion: Its champion, if it has one.
        versions: How many versions were registered.
        manifest: The champion's manifest.
        deleted: Who deleted the task, and when; None unless it is deleted.
    """

    task: str
    champion: Champion | None
    versions: int
    manifest: Manifest | None
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
        self._cache = AdapterCache(cache, limit=cache_bytes)

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

        A task costs two requests, and as many run at once as the store has lanes.
        """
        surveyed = map_in_lanes(self._survey_task, self.ledger.list_names(), self.store.lanes)
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
        manifest = self._read_manifest_of(state.task, champion.adapter_id) if champion else None
        return TaskEntry(
            task=state.task,
            champion=champion,
            versions=head.versions,
            manifest=manifest,
            deleted=state.deleted,
        )

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
            raise NotFoundError(
                "no version has passed the gate yet", where=task, todo=f"see: lorry history {task}"
            )
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
        """Return the manifest of an adapter, having checked that it is the one that the id names.

        Raises:
            NotFoundError: There is no such adapter.
            AdapterRejectedError: The stored manifest was changed.
        """
        key = f"{adapter_key(adapter_id)}/{MANIFEST_NAME}"
        stored = self.store.read(key)
        if stored is None:
            raise NotFoundError(
                f"there is no adapter {adapter_id}", where=self.store.locate(key), todo="restore the store"
            )
        if digest_bytes(stored.content) != adapter_id:
            raise AdapterRejectedError(
                "the manifest was changed: its digest is not the adapter's id",
                where=self.store.locate(key),
                todo="restore it from a backup, or roll back to another version",
            )
        return Manifest.parse(stored.content, where=self.store.locate(key))

    def fetch(self, adapter_id: str) -> Path:
        """Return a verified local folder of an adapter, downloading it once into the cache.

        It stays there as long as this object lives.

        Raises:
            AdapterRejectedError: The stored adapter is damaged, or has no signature that is trusted although
                signatures are required.
        """
        folder = self._cache.fetch(adapter_id, lambda target: self._copy_from_store(adapter_id, target))
        if self.trust.is_checking:
            self.check_signatures(verify_adapter(folder, expected_id=adapter_id))
        return folder

    def export(self, adapter_id: str, target: Path, *, companions: Sequence[str] = ()) -> Manifest:
        """Copy an adapter to a new folder, verified; the folder appears whole or not at all.

        One that is in the cache already is not downloaded again.

        Args:
            adapter_id: The adapter.
            target: The folder.
            companions: What is copied as well, if there is any: ``signatures``, ``provenance``, each into a
                folder of that name.

        Raises:
            ConflictError: The folder exists and holds something else.
            AdapterRejectedError: The stored adapter is damaged, or has no signature that is trusted although
                signatures are required.
            NotFoundError: There is no such adapter, or gc removed it meanwhile.
            StoreError: The folder cannot be written.
        """
        is_remote = self.store.find_path(adapter_key(adapter_id)) is None
        return self._write_copy(
            adapter_id, target, self._cache.find(adapter_id) if is_remote else None, companions
        )

    def _copy_from_store(self, adapter_id: str, target: Path) -> Manifest:
        return self._write_copy(adapter_id, target, None, ())

    def _write_copy(
        self, adapter_id: str, target: Path, source: Path | None, companions: Sequence[str]
    ) -> Manifest:
        """Copy an adapter from a verified folder, or from the store if there is none."""
        target = Path(os.path.abspath(target))  # noqa: PTH100 -- '..' is folded away, links are kept
        if _is_taken(target):
            self.check_signatures(self.read_manifest(adapter_id))
            return self._accept_existing(target, adapter_id)
        with self.leases.hold_for_reading(adapter_hex(adapter_id)):
            return self._fill_copy(adapter_id, target, source, companions)

    def _fill_copy(
        self, adapter_id: str, target: Path, source: Path | None, companions: Sequence[str]
    ) -> Manifest:
        manifest = self.read_manifest(adapter_id)
        self.check_signatures(manifest)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        try:
            partial.mkdir(parents=True)
            for name in [*(entry.name for entry in manifest.files), MANIFEST_NAME]:
                if source is not None:
                    shutil.copyfile(source / name, partial / name)
                else:
                    self.store.download(f"{adapter_key(adapter_id)}/{name}", partial / name)
            for name in companions:
                copy_companions(self.store, adapter_id, name, partial)
            verify_adapter(partial, expected_id=adapter_id, beside=COMPANION_FOLDERS)
            if target.is_dir():
                target.rmdir()
            partial.rename(target)
        except NotFoundError as error:
            # gc removes the manifest first: without one there is no adapter any more.
            self.read_manifest(adapter_id)
            raise AdapterRejectedError(
                "one of its files is missing from the store", where=error.where, todo=error.todo
            ) from error
        except OSError as error:
            if _is_taken(target):
                return self._accept_existing(target, adapter_id)
            raise StoreError(
                f"cannot write: {error.strerror}",
                where=str(target),
                todo="choose a folder that can be written",
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return manifest

    def check_signatures(self, manifest: Manifest) -> None:
        """Judge an adapter by its signatures in the store, as the settings' policy says.

        Raises:
            AdapterRejectedError: Signatures are required, and none is trusted.
        """
        self.trust.check_adapter(
            manifest,
            [self.find_signatures(manifest.adapter_id)],
            where=f"{manifest.task}: {manifest.adapter_id}",
        )

    def find_signatures(self, adapter_id: str) -> StoredSignatures:
        """Return the signatures of an adapter in the store."""
        return StoredSignatures(self.store, adapter_id)

    def verify_task(self, task: str) -> Iterator[tuple[Version, LorryError | None]]:
        """Re-hash every version of a task in the store; yield each with what is wrong with it, or None.

        A version whose files were collected comes with the NotFoundError that says so.

        Raises:
            StoreError: The task's history was changed.
        """
        # Each event is looked at in its own place, whatever copies there are.
        for version in list_versions(self.ledger.read_history(task, packed=False)):
            try:
                self.check_version(task, version.number, version.adapter_id)
                self._verify_provenance(task, version)
            except LorryError as error:
                yield version, error
            else:
                yield version, None

    def check_version(self, task: str, version: int, adapter_id: str) -> None:
        """Re-hash the files of a version in the store.

        Raises:
            AdapterRejectedError: They are damaged.
            NotFoundError: There are none, or they were collected.
        """
        self._require_manifest(task, version, adapter_id)
        self._verify_stored(task, adapter_id)

    # Writing

    def publish(self, folder: Path, manifest: Manifest) -> str:
        """Put an adapter into the store: its files first, its manifest last; repeating it is harmless.

        Args:
            folder: A folder with the files that the manifest lists; other files are not published.
            manifest: The adapter's identity.

        Returns:
            The adapter id.

        Raises:
            AdapterRejectedError: The folder differs from the manifest, or no reader would load it.
            UsageError: Signatures are required, and there is no key to sign with.
        """
        self.trust.check_ready()
        adapter_id = manifest.adapter_id
        # Keys are never overwritten: a wrong file under this id would block the right one for ever.
        check_files(folder, manifest, todo="train again, or publish the folder that was evaluated")
        key, name = adapter_key(adapter_id), adapter_hex(adapter_id)
        with self.leases.hold(name) as lease:
            for entry in manifest.files:
                self.store.upload(f"{key}/{entry.name}", folder / entry.name)
            # What was stored is compared with the manifest before the adapter exists.
            for entry in manifest.files:
                self._verify_file(key, entry.name, entry.sha256)
            lease.require_held()
            if self.trust.is_signing:
                # Without its manifest there is no adapter: it appears together with its signature.
                self.trust.sign_adapter(manifest, self.find_signatures(adapter_id))
            self.store.create(f"{key}/{MANIFEST_NAME}", manifest.serialize())
            # Until the ledger names it, gc knows by the lease that somebody is about to.
            self.leases.keep(name, lease)
        return adapter_id

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
            details: Whatever else the history should keep.
            by: Who acts; the user's name by default.

        Raises:
            ConflictError: ``promote``, and the champion is no longer the one that was judged.
            NotFoundError: The adapter was not published, or the task was deleted.
            AdapterRejectedError: The adapter was trained for another task, or has no signature that is
                trusted although signatures are required.
        """
        actor = by or name_user()
        with self.leases.hold(adapter_hex(adapter_id)):
            self.check_signatures(self._read_manifest_of(task, adapter_id))

            def decide(state: TaskState) -> Move | Event:
                require_present(state)
                is_new = self.ledger.claim_adapter(state, adapter_id)
                events = [] if is_new else self.ledger.read_events(state)
                versions = list_versions(events)
                known = next((entry for entry in versions if entry.adapter_id == adapter_id), None)
                if known and (not promote or any(event.champion_after == known.number for event in events)):
                    return known.registered
                if promote:
                    require_unchanged(state, judged_champion)
                return Move(
                    "promote" if known else "register",
                    adapter_id,
                    known.number if known else None,
                    promote,
                    actor,
                    tuple(reasons),
                    details,
                )

            return record_move(self.ledger, task, decide)

    def promote(self, task: str, version: int, *, reason: str, by: str | None = None) -> Event:
        """Make a version the champion.

        Raises:
            NotFoundError: No such task or version, the task was deleted, or the version's files were
                collected.
            ConflictError: It is the champion already, or somebody else moved the champion first.
            AdapterRejectedError: The stored adapter is damaged.
        """
        state = self.ledger.require_state(task)
        require_present(state)
        champion = state.champion_version
        chosen = find_version(self.ledger.read_events(state), version, task=task)
        if champion == version:
            raise ConflictError(
                "it is already the champion", where=f"{task} v{version}", todo="name another version"
            )
        return self._move(task, "promote", lambda _: chosen, champion, reason, by)

    def rollback(self, task: str, *, reason: str, by: str | None = None) -> Event:
        """Make the previous champion the champion again.

        Raises:
            NotFoundError: No such task, no earlier champion, the task was deleted, or the files of that
                champion were collected.
            ConflictError: Somebody else moved the champion first.
            AdapterRejectedError: The stored adapter is damaged.
        """
        state = self.ledger.require_state(task)
        require_present(state)
        champion = state.champion_version

        def choose(state: TaskState) -> Version:
            events = self.ledger.read_events(state)
            return find_version(events, find_rollback_version(events, task=task), task=task)

        return self._move(task, "rollback", choose, champion, reason, by)

    def _move(
        self,
        task: str,
        action: Literal["promote", "rollback"],
        choose: Callable[[TaskState], Version],
        champion: int | None,
        reason: str,
        by: str | None,
    ) -> Event:
        self.trust.check_ready()
        actor = by or name_user()
        verified: set[int] = set()

        def decide(state: TaskState) -> Move:
            require_present(state)
            require_same_champion(state, champion)
            version = choose(state)
            if version.number not in verified:
                held.enter_context(self.leases.hold(adapter_hex(version.adapter_id)))
                self.check_version(task, version.number, version.adapter_id)
                verified.add(version.number)
            return Move(action, version.adapter_id, version.number, True, actor, (reason,))

        with contextlib.ExitStack() as held:
            return record_move(self.ledger, task, decide)

    def _require_manifest(self, task: str, version: int, adapter_id: str) -> Manifest:
        manifest = self.read_version(task, version, adapter_id)
        if manifest is None:
            raise explain_collection(self.ledger.read_history(task), version, task=task)
        return manifest

    def _read_manifest_of(self, task: str, adapter_id: str) -> Manifest:
        manifest = self.read_manifest(adapter_id)
        if manifest.task != task:
            raise AdapterRejectedError(
                f"{adapter_id} was trained for {manifest.task!r}",
                where=task,
                todo="register it under its own task",
            )
        return manifest

    def hash_stored(self, task: str, adapter_id: str) -> Manifest:
        """Re-hash an adapter in the store, whoever signed it, and return its manifest.

        Raises:
            AdapterRejectedError: It is damaged, or another task's.
            NotFoundError: There is no such adapter.
        """
        key = adapter_key(adapter_id)
        manifest = self._read_manifest_of(task, adapter_id)
        folder = self.store.find_path(key)
        if folder is not None:
            return verify_adapter(folder, expected_id=adapter_id)
        for entry in manifest.files:
            self._verify_file(key, entry.name, entry.sha256)
        return manifest

    def _verify_stored(self, task: str, adapter_id: str) -> None:
        self.check_signatures(self.hash_stored(task, adapter_id))

    def _verify_provenance(self, task: str, version: Version) -> None:
        from lorry_registry.provenance import find_provenance, read_provenance

        digest = find_provenance(version.registered)
        if digest is not None:
            read_provenance(self.store, self._read_manifest_of(task, version.adapter_id), digest)

    def _verify_file(self, key: str, name: str, sha256: str) -> None:
        digest = self.store.digest_key(f"{key}/{name}")
        if digest != sha256:
            raise AdapterRejectedError(
                f"{name} is missing" if digest is None else f"{name} is not what the manifest says",
                where=self.store.locate(key),
                todo="publish the adapter again",
            )

    def _accept_existing(self, target: Path, adapter_id: str) -> Manifest:
        try:
            return verify_adapter(target, expected_id=adapter_id, beside=COMPANION_FOLDERS)
        except AdapterRejectedError as error:
            raise ConflictError(
                "the folder exists and is not this adapter",
                where=str(target),
                todo="name a new or empty folder",
            ) from error


def adapter_key(adapter_id: str) -> str:
    """Return the key of an adapter in a store."""
    return f"adapters/{adapter_hex(adapter_id)}"


def _is_taken(target: Path) -> bool:
    try:
        return any(target.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConflictError(
            f"the folder cannot be filled: {error.strerror}",
            where=str(target),
            todo="name a new or empty folder",
        ) from error


def adapter_hex(adapter_id: str) -> str:
    """Return the hex digits of an adapter's id, by which its keys are named."""
    return adapter_id.removeprefix("sha256:")
