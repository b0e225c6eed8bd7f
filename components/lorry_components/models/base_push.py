"""Copies a base to a place of bases, where tasks call it ``bases:NAME``, and lists what is there.

A base is there as a whole or not at all: into a folder it is copied under a hidden name and renamed, and on
S3 its manifest is written last. Pushing it again completes what a killed push began, or else does nothing.
"""

import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lorry_components.models.bases import list_base_files, resolve_base
from lorry_components.models.named_bases import (
    MANIFEST_NAME,
    BaseFile,
    BaseManifest,
    list_names,
    open_place,
    read_folder_manifest,
    read_stored_manifest,
)
from lorry_components.models.pooling import list_pooling_files
from lorry_registry.errors import BaseModelError, ConflictError, StoreError
from lorry_registry.files.atomic_write import whole_file, write_whole
from lorry_registry.files.digests import DigestFile, digest_file, digest_files
from lorry_registry.stores import check_key
from lorry_registry.tasks.base_places import BasePlace
from lorry_registry.tasks.input_specs import BaseSpec

# No copy takes this long without a new file, so what is older was left by a process that was killed.
_LEFTOVER_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class PushedBase:
    """What a push did.

    Attributes:
        name: The base's name.
        manifest: What is there under that name.
        state: ``pushed``, or ``present`` if nothing had to be done.
    """

    name: str
    manifest: BaseManifest
    state: Literal["pushed", "present"]


@dataclass(frozen=True, slots=True)
class ListedBase:
    """A base in a place.

    Attributes:
        name: Its name.
        architecture: Its architecture; None if it is not usable.
        size_bytes: The bytes of the files that belong to it; None if it is not usable.
        fingerprint: Its fingerprint; None if it is not usable.
        problem: Why it is not usable; empty if it is.
    """

    name: str
    architecture: str | None
    size_bytes: int | None
    fingerprint: str | None
    problem: str = ""


def push_base(
    source: BaseSpec, name: str, place: BasePlace, *, digest: DigestFile = digest_file
) -> PushedBase:
    """Copy the files that belong to a base, and no others, to a place of bases.

    Args:
        source: The base on this machine.
        name: The name under which tasks will call it; it has the form of one.
        place: Where it goes.
        digest: Computes the digest of a file, or looks it up.

    Raises:
        BaseModelError: It is not usable as a base, has a file whose name cannot be kept, or was changed.
        ConflictError: Another base has this name.
        StoreError: The place cannot be written.
    """
    base = resolve_base(source, digest=digest)
    manifest = _describe(base.folder, digest)
    if manifest.fingerprint != base.identity.fingerprint:
        raise _refuse_changed(base.folder)
    push = _push_to_store if place.is_remote else _push_to_folder
    return PushedBase(
        name, manifest, "pushed" if push(base.folder, name, manifest, place, digest) else "present"
    )


def list_bases(place: BasePlace, *, digest: DigestFile = digest_file) -> Iterator[ListedBase]:
    """Yield the bases of a place by name; a folder that was made by other means is hashed.

    Raises:
        StoreError: The place cannot be listed.
    """
    for name in list_names(place):
        try:
            manifest = _read_manifest(place, name, digest)
        except BaseModelError as error:
            yield ListedBase(name, None, None, None, f"{error.where}: {error.what}")
            continue
        if manifest is not None:
            yield ListedBase(name, manifest.architecture, manifest.size_bytes, manifest.fingerprint)


def _read_manifest(place: BasePlace, name: str, digest: DigestFile) -> BaseManifest | None:
    if place.is_remote:
        store, prefix = open_place(place)
        return read_stored_manifest(store, f"{prefix}/{name}")
    folder = Path(place.address) / name
    return read_folder_manifest(folder) or _describe(folder, digest)


def _describe(folder: Path, digest: DigestFile) -> BaseManifest:
    architecture, names = list_base_files(folder)
    companions = list_pooling_files(folder)
    for name in (*names, *companions):
        try:
            check_key(name)
        except StoreError as error:
            raise BaseModelError(error.what, where=str(folder), todo="rename the file") from error
    files, beside = (
        tuple(
            BaseFile(name=name, size=(folder / name).stat().st_size, sha256=digest(folder / name))
            for name in sorted(chosen)
        )
        for chosen in (names, companions)
    )
    fingerprint = digest_files(folder, names, digest=digest)
    return BaseManifest(architecture=architecture, fingerprint=fingerprint, files=files, companions=beside)


def _push_to_store(
    folder: Path, name: str, manifest: BaseManifest, place: BasePlace, digest: DigestFile
) -> bool:
    """Return whether anything was written."""
    store, prefix = open_place(place)
    key = f"{prefix}/{name}"
    known = read_stored_manifest(store, key)
    if known is not None and known.fingerprint != manifest.fingerprint:
        raise _refuse_name(name, store.locate(key), known.fingerprint)
    files = f"{key}/{manifest.hex}"
    # An object is there as a whole or not at all, so that a killed push goes on with the next one.
    sizes = {entry.key: entry.size for entry in store.list_entries(files)}
    missing = [file for file in manifest.all_files if sizes.get(f"{files}/{file.name}") != file.size]
    for file in missing:
        store.upload(f"{files}/{file.name}", folder / file.name)
        if digest(folder / file.name) != file.sha256:
            raise _refuse_changed(folder)
    if known is None:
        try:
            store.create(f"{key}/{MANIFEST_NAME}", manifest.serialize())
        except ConflictError as error:
            raise _refuse_name(name, store.locate(key), "another one") from error
    return known is None or bool(missing)


def _push_to_folder(
    folder: Path, name: str, manifest: BaseManifest, place: BasePlace, digest: DigestFile
) -> bool:
    """Return whether anything was written."""
    root = Path(place.address)
    target = root / name
    if _is_taken(target):
        return _accept_existing(target, manifest, digest)
    partial = root / f".{name}.{uuid.uuid4().hex}.partial"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(root, name)
        partial.mkdir()
        for file in manifest.all_files:
            _copy(folder / file.name, partial / file.name)
            if digest_file(partial / file.name) != file.sha256:
                raise _refuse_changed(folder)
        write_whole(partial / MANIFEST_NAME, manifest.serialize())
        partial.rename(target)
    except OSError as error:
        if _is_taken(target):
            # Someone else was faster.
            return _accept_existing(target, manifest, digest)
        raise StoreError(
            f"the base cannot be copied: {error.strerror or error}",
            where=str(root),
            todo="set LORRY_BASES to a folder that this user may write and that has space",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def _copy(source: Path, target: Path) -> None:
    """Copy a file, readable for everyone: pods run as another user than who pushes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as partial:
        shutil.copyfile(source, partial)


def _accept_existing(target: Path, manifest: BaseManifest, digest: DigestFile) -> bool:
    try:
        found = _describe(target, digest)
    except BaseModelError as error:
        raise ConflictError(
            f"the folder is there, and holds no whole base: {error.what}",
            where=str(target),
            todo="remove it, or give another name: --name NAME",
        ) from error
    if found.fingerprint != manifest.fingerprint:
        raise _refuse_name(target.name, str(target), found.fingerprint)
    return False


def _is_taken(target: Path) -> bool:
    try:
        return any(target.iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _remove_leftovers(root: Path, name: str) -> None:
    for path in root.glob(f".{name}.*.partial"):
        status = path.stat()
        if stat.S_ISDIR(status.st_mode) and time.time() - status.st_mtime > _LEFTOVER_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _refuse_name(name: str, where: str, fingerprint: str) -> ConflictError:
    return ConflictError(
        f"another base is called {name!r}; its fingerprint is {fingerprint}",
        where=where,
        todo="give this one another name: --name NAME",
    )


def _refuse_changed(folder: Path) -> BaseModelError:
    return BaseModelError(
        "its files changed while they were copied", where=str(folder), todo="push it again when no one writes"
    )
