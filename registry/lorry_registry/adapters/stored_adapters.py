"""Adapters in a store, each under its id: published once, verified whenever one is read.

Nothing here knows which adapter belongs to which task.
"""

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from lorry_registry.adapters.adapter_cache import AdapterCache
from lorry_registry.adapters.verification import check_files, read_manifest, verify_adapter
from lorry_registry.errors import AdapterRejectedError, ConflictError, NotFoundError, StoreError
from lorry_registry.files.digests import digest_bytes
from lorry_registry.leases.content_leases import Leases
from lorry_registry.manifest import MANIFEST_NAME, Manifest
from lorry_registry.signing.adapter_signatures import SIDECAR_FOLDERS
from lorry_registry.signing.attestations import StoredSignatures, copy_sidecars
from lorry_registry.signing.trust import Trust
from lorry_registry.stores import Store


class StoredAdapters:
    """The adapters of a store, with a cache of verified copies.

    Args:
        store: Where they are.
        cache: Verified copies on this machine, by id.
        trust: Signs what is published and judges what is read.
        leases: Keep garbage collection away from what is being written or read.
    """

    def __init__(self, store: Store, cache: AdapterCache, *, trust: Trust, leases: Leases) -> None:
        self.trust = trust
        self.leases = leases
        self.cache = cache
        self._store = store

    def read_manifest(self, adapter_id: str) -> Manifest:
        """Return the manifest of an adapter, having checked that it is the one that the id names.

        Raises:
            NotFoundError: There is no such adapter.
            AdapterRejectedError: The stored manifest was changed.
        """
        key = f"{adapter_key(adapter_id)}/{MANIFEST_NAME}"
        stored = self._store.read(key)
        if stored is None:
            raise NotFoundError(
                f"there is no adapter {adapter_id}", where=self._store.locate(key), todo="restore the store"
            )
        if digest_bytes(stored.content) != adapter_id:
            raise AdapterRejectedError(
                "the manifest was changed: its digest is not the adapter's id",
                where=self._store.locate(key),
                todo="restore it from a backup, or roll back to another version",
            )
        return Manifest.parse(stored.content, where=self._store.locate(key))

    def fetch(self, adapter_id: str) -> Path:
        """Return a verified local folder of an adapter, downloading it once into the cache.

        It stays there as long as this object lives.

        Raises:
            AdapterRejectedError: The stored adapter is damaged, or has no signature that is trusted although
                signatures are required.
        """
        folder = self.cache.fetch(adapter_id, lambda target: self._copy_from_store(adapter_id, target))
        if self.trust.is_checking:
            # The cache has just hashed every file of it.
            self.check_signatures(read_manifest(folder))
        return folder

    def export(self, adapter_id: str, target: Path, *, sidecars: Sequence[str] = ()) -> Manifest:
        """Copy an adapter to a new folder, verified; the folder appears whole or not at all.

        One that is in the cache already is not downloaded again.

        Args:
            adapter_id: The adapter.
            target: The folder.
            sidecars: What is copied as well, if there is any: ``signatures``, ``provenance``, each into a
                folder of that name.

        Raises:
            ConflictError: The folder exists and holds something else.
            AdapterRejectedError: The stored adapter is damaged, or has no signature that is trusted although
                signatures are required.
            NotFoundError: There is no such adapter, or gc removed it meanwhile.
            StoreError: The folder cannot be written.
        """
        is_remote = self._store.find_path(adapter_key(adapter_id)) is None
        return self._write_copy(
            adapter_id, target, self.cache.find(adapter_id) if is_remote else None, sidecars
        )

    def _copy_from_store(self, adapter_id: str, target: Path) -> Manifest:
        return self._write_copy(adapter_id, target, None, ())

    def _write_copy(
        self, adapter_id: str, target: Path, source: Path | None, sidecars: Sequence[str]
    ) -> Manifest:
        """Copy an adapter from a verified folder, or from the store if there is none."""
        target = Path(os.path.abspath(target))  # noqa: PTH100 -- '..' is folded away, links are kept
        if _is_taken(target):
            self.check_signatures(self.read_manifest(adapter_id))
            return self._accept_existing(target, adapter_id)
        with self.leases.hold_for_reading(adapter_hex(adapter_id)):
            return self._fill_copy(adapter_id, target, source, sidecars)

    def _fill_copy(
        self, adapter_id: str, target: Path, source: Path | None, sidecars: Sequence[str]
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
                    self._store.download(f"{adapter_key(adapter_id)}/{name}", partial / name)
            for name in sidecars:
                copy_sidecars(self._store, adapter_id, name, partial)
            verify_adapter(partial, expected_id=adapter_id, beside=SIDECAR_FOLDERS)
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

    def hash_files(self, manifest: Manifest) -> None:
        """Re-hash the files of an adapter in the store.

        Raises:
            AdapterRejectedError: One is missing or damaged.
        """
        key = adapter_key(manifest.adapter_id)
        folder = self._store.find_path(key)
        if folder is not None:
            verify_adapter(folder, expected_id=manifest.adapter_id)
            return
        for entry in manifest.files:
            self._verify_file(key, entry.name, entry.sha256)

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
        return StoredSignatures(self._store, adapter_id)

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
                self._store.upload(f"{key}/{entry.name}", folder / entry.name)
            # What was stored is compared with the manifest before the adapter exists.
            for entry in manifest.files:
                self._verify_file(key, entry.name, entry.sha256)
            lease.require_held()
            if self.trust.is_signing:
                # Without its manifest there is no adapter: it appears together with its signature.
                self.trust.sign_adapter(manifest, self.find_signatures(adapter_id))
            self._store.create(f"{key}/{MANIFEST_NAME}", manifest.serialize())
            # Until the ledger names it, gc knows by the lease that it is about to.
            self.leases.keep(name, lease)
        return adapter_id

    def _verify_file(self, key: str, name: str, sha256: str) -> None:
        digest = self._store.digest_key(f"{key}/{name}")
        if digest != sha256:
            raise AdapterRejectedError(
                f"{name} is missing" if digest is None else f"{name} is not what the manifest says",
                where=self._store.locate(key),
                todo="publish the adapter again",
            )

    def _accept_existing(self, target: Path, adapter_id: str) -> Manifest:
        try:
            return verify_adapter(target, expected_id=adapter_id, beside=SIDECAR_FOLDERS)
        except AdapterRejectedError as error:
            raise ConflictError(
                "the folder exists and is not this adapter",
                where=str(target),
                todo="name a new or empty folder",
            ) from error


def adapter_key(adapter_id: str) -> str:
    """Return the key of an adapter in a store."""
    return f"adapters/{adapter_hex(adapter_id)}"


def adapter_hex(adapter_id: str) -> str:
    """Return the hex digits of an adapter's id, by which its keys are named."""
    return adapter_id.removeprefix("sha256:")


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
