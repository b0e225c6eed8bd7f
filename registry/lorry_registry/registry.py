"""The one class that most users need: from tasks to adapters, from adapters to files.

Writing an adapter is three steps in this order: its files, then its manifest (from here on it exists), then
the ledger's event (from here on a task has it). A kill in between leaves files that nothing refers to.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import JsonValue

from lorry_registry.digests import digest_bytes
from lorry_registry.errors import AdapterRejectedError, ConflictError, LorryError, NotFoundError, StoreError
from lorry_registry.ledger import Champion, Event, Ledger, TaskState, require_unchanged
from lorry_registry.manifest import MANIFEST_NAME, Manifest
from lorry_registry.promotion import Version, find_rollback_version, find_version, list_versions
from lorry_registry.registry_identity import RegistryIdentity
from lorry_registry.settings import Settings
from lorry_registry.signing.adapter_signatures import COMPANION_FOLDERS
from lorry_registry.signing.attestations import StoredSignatures, copy_companions
from lorry_registry.signing.trust import Trust
from lorry_registry.stores import Store, open_store
from lorry_registry.users import name_user
from lorry_registry.verification import check_files, verify_adapter


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """A task and the adapter that its name stands for."""

    task: str
    champion: Champion | None
    versions: int
    manifest: Manifest | None


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
    """

    def __init__(self, store: Store, cache: Path, *, trust: Trust | None = None) -> None:
        self.store = store
        self.trust = trust or Trust()
        self._identity = RegistryIdentity(store)
        self.ledger = Ledger(store, trust=self.trust, identity=self._identity)
        self._cache = cache

    @classmethod
    def open(cls, settings: Settings, store: Store | None = None) -> "Registry":
        """Return the registry that the settings name.

        Args:
            settings: Where things are, and which signatures are demanded.
            store: The store, if it is another one than the settings name.
        """
        return cls(
            store or open_store(settings.store, settings.s3),
            settings.cache / "adapters",
            trust=Trust(settings.signing, settings.seen_heads),
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
        """Return every task with its champion, sorted by name."""
        return [self.describe_task(task) for task in self.ledger.list_tasks()]

    def describe_task(self, task: str) -> TaskEntry:
        """Return a task with its champion.

        Raises:
            NotFoundError: No such task.
            AdapterRejectedError: The champion's manifest was changed, or is another task's.
        """
        state = self.ledger.require_state(task)
        assert state.head is not None
        champion = state.champion
        manifest = self._read_manifest_of(task, champion.adapter_id) if champion else None
        return TaskEntry(task=task, champion=champion, versions=state.head.versions, manifest=manifest)

    def list_versions(self, task: str) -> list[Version]:
        """Return the versions of a task, the oldest first; none when the task is unknown."""
        if self.ledger.read_state(task).head is None:
            return []
        return list_versions(self.ledger.read_history(task))

    def resolve(self, task: str, version: int | None = None) -> Resolution:
        """Return where the champion of a task is, or one version of it.

        Raises:
            NotFoundError: No such task or version, or no champion yet.
            AdapterRejectedError: The adapter's manifest was changed, or is another task's.
        """
        state = self.ledger.require_state(task)
        champion = state.champion
        if version is None and champion is None:
            raise NotFoundError(
                "no version has passed the gate yet", where=task, todo=f"see: lorry history {task}"
            )
        if champion is not None and version in (None, champion.version):
            number, adapter_id = champion.version, champion.adapter_id
        else:
            assert version is not None
            chosen = find_version(self.ledger.read_history(task), version, task=task)
            number, adapter_id = chosen.number, chosen.adapter_id
        key = adapter_key(adapter_id)
        is_champion = champion is not None and champion.version == number
        return Resolution(
            task=task,
            version=number,
            adapter_id=adapter_id,
            manifest=self._read_manifest_of(task, adapter_id),
            uri=self.store.locate(key),
            path=self.store.find_path(key),
            promoted_at=champion.promoted_at if champion and is_champion else None,
        )

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

        Raises:
            AdapterRejectedError: The stored adapter is damaged, or has no signature that is trusted although
                signatures are required.
        """
        folder = self._cache / _hex(adapter_id)
        if folder.is_dir():
            manifest = None
            with contextlib.suppress(AdapterRejectedError):
                manifest = verify_adapter(folder, expected_id=adapter_id)
            if manifest is not None:
                self.check_signatures(manifest)
                return folder
            # The cache is only a copy; the store decides. Whatever cannot be removed makes the export fail.
            shutil.rmtree(folder, ignore_errors=True)
        self.export(adapter_id, folder)
        return folder

    def export(self, adapter_id: str, target: Path, *, companions: Sequence[str] = ()) -> Manifest:
        """Copy an adapter to a new folder, verified; the folder appears whole or not at all.

        Args:
            adapter_id: The adapter.
            target: The folder.
            companions: What is copied as well, if there is any: ``signatures``, ``provenance``, each into a
                folder of that name.

        Raises:
            ConflictError: The folder exists and holds something else.
            AdapterRejectedError: The stored adapter is damaged, or has no signature that is trusted although
                signatures are required.
            StoreError: The folder cannot be written.
        """
        manifest = self.read_manifest(adapter_id)
        self.check_signatures(manifest)
        target = Path(os.path.abspath(target))  # noqa: PTH100 -- '..' is folded away, links are kept
        if _is_taken(target):
            return self._accept_existing(target, adapter_id)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        try:
            partial.mkdir(parents=True)
            for name in [*(entry.name for entry in manifest.files), MANIFEST_NAME]:
                self.store.download(f"{adapter_key(adapter_id)}/{name}", partial / name)
            for name in companions:
                copy_companions(self.store, adapter_id, name, partial)
            verify_adapter(partial, expected_id=adapter_id, beside=COMPANION_FOLDERS)
            if target.is_dir():
                target.rmdir()
            partial.rename(target)
        except NotFoundError as error:
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

        Raises:
            StoreError: The task's history was changed.
        """
        for version in list_versions(self.ledger.read_history(task)):
            try:
                self._verify_stored(task, version.adapter_id)
                self._verify_provenance(task, version)
            except LorryError as error:
                yield version, error
            else:
                yield version, None

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
        key = adapter_key(adapter_id)
        for entry in manifest.files:
            self.store.upload(f"{key}/{entry.name}", folder / entry.name)
        # What was stored is compared with the manifest before the adapter exists.
        for entry in manifest.files:
            self._verify_file(key, entry.name, entry.sha256)
        if self.trust.is_signing:
            # Without its manifest there is no adapter: it appears together with its signature.
            self.trust.sign_adapter(manifest, self.find_signatures(adapter_id))
        self.store.create(f"{key}/{MANIFEST_NAME}", manifest.serialize())
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
            NotFoundError: The adapter was not published.
            AdapterRejectedError: The adapter was trained for another task, or has no signature that is
                trusted although signatures are required.
        """
        self.check_signatures(self._read_manifest_of(task, adapter_id))
        state = self.ledger.read_state(task)
        events = self.ledger.read_history(task) if state.head else []
        known = next((entry for entry in list_versions(events) if entry.adapter_id == adapter_id), None)
        if known and (not promote or any(event.champion_after == known.number for event in events)):
            return known.registered
        if promote:
            require_unchanged(state, judged_champion)
        return self.ledger.append(
            state,
            action="promote" if known else "register",
            adapter_id=adapter_id,
            version=known.number if known else None,
            promote=promote,
            by=by or name_user(),
            reasons=tuple(reasons),
            details=details,
        )

    def promote(self, task: str, version: int, *, reason: str, by: str | None = None) -> Event:
        """Make a version the champion.

        Raises:
            NotFoundError: No such task or version.
            ConflictError: It is the champion already, or somebody else moved first.
            AdapterRejectedError: The stored adapter is damaged.
        """
        state = self.ledger.require_state(task)
        chosen = find_version(self.ledger.read_history(task), version, task=task)
        if state.champion_version == version:
            raise ConflictError(
                "it is already the champion", where=f"{task} v{version}", todo="name another version"
            )
        return self._move(state, chosen, "promote", reason, by)

    def rollback(self, task: str, *, reason: str, by: str | None = None) -> Event:
        """Make the previous champion the champion again.

        Raises:
            NotFoundError: No such task, or no earlier champion.
            ConflictError: Somebody else moved first.
            AdapterRejectedError: The stored adapter is damaged.
        """
        state = self.ledger.require_state(task)
        events = self.ledger.read_history(task)
        former = find_version(events, find_rollback_version(events, task=task), task=task)
        return self._move(state, former, "rollback", reason, by)

    def _move(self, state: TaskState, version: Version, action: str, reason: str, by: str | None) -> Event:
        self.trust.check_ready()
        self._verify_stored(state.task, version.adapter_id)
        return self.ledger.append(
            state,
            action="rollback" if action == "rollback" else "promote",
            adapter_id=version.adapter_id,
            version=version.number,
            promote=True,
            by=by or name_user(),
            reasons=(reason,),
        )

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
    return f"adapters/{_hex(adapter_id)}"


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


def _hex(adapter_id: str) -> str:
    return adapter_id.removeprefix("sha256:")
