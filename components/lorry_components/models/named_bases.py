"""Bases with a logical name, ``bases:NAME``, where each machine has its own place for them.

The place is a folder (on a cluster a mounted volume) or a prefix on S3, from which a base is downloaded once
into the cache of this machine. :mod:`~lorry_components.models.base_push` writes what is read here. Layout::

    folder      NAME/config.json ...                  used where it lies
                NAME/lorry-base.json                  missing where the folder was made by other means
    s3://...    NAME/lorry-base.json                  written last: without it there is no such base
                NAME/<fingerprint's hex>/config.json ...

``lorry-base.json`` is a :class:`BaseManifest`: a base whose files are not those that were pushed is refused.
"""

import contextlib
import json
import re
import shutil
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from lorry_registry.errors import BaseModelError, LorryError, NotFoundError, StoreError
from lorry_registry.files.atomic_write import write_whole
from lorry_registry.files.digests import canonical_json, digest_bytes, digest_document, digest_file
from lorry_registry.files.file_locks import hold_lock
from lorry_registry.stores import Store, check_key, open_store
from lorry_registry.stores.concurrency import map_concurrent
from lorry_registry.tasks.base_places import BasePlace
from lorry_registry.tasks.input_specs import BASE_NAME, BaseSpec
from lorry_registry.tasks.task_document import suggest_name

MANIFEST_NAME = "lorry-base.json"
_SHA256 = r"^sha256:[0-9a-f]{64}$"
_NAME = re.compile(BASE_NAME)
# Some files of a base are gigabytes: a few at once use the network, more would only take memory and disk.
_DOWNLOADS = 4


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BaseFile(_Document):
    """A file of a base.

    Attributes:
        name: Its path in the base's folder, with slashes.
        size: Its bytes.
        sha256: Its digest.
    """

    name: str
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=_SHA256)]

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        # It becomes a path on the machine that downloads it.
        try:
            return check_key(name)
        except StoreError as error:
            raise ValueError(error.what) from error


class BaseManifest(_Document):
    """What was pushed under a name.

    Attributes:
        schema_version: The form of this document.
        architecture: The base's architecture, as its configuration has it.
        fingerprint: The base's fingerprint, which is that of the files.
        files: The files that belong to it, and no others.
        companions: Files beside them that decide nothing that the base computes, and are no part of its
            fingerprint, such as those that say how its states are pooled.
    """

    schema_version: Literal[1] = 1
    architecture: str
    fingerprint: Annotated[str, Field(pattern=_SHA256)]
    files: Annotated[tuple[BaseFile, ...], Field(min_length=1)]
    companions: tuple[BaseFile, ...] = ()

    @model_validator(mode="after")
    def _check_fingerprint(self) -> Self:
        if digest_document({file.name: file.sha256 for file in self.files}) != self.fingerprint:
            raise ValueError("its fingerprint is not that of its files")
        return self

    @classmethod
    def parse(cls, content: bytes, *, where: str) -> Self:
        """Read a manifest.

        Raises:
            BaseModelError: It is damaged, or of a later version of Lorry.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise BaseModelError(
                f"cannot be read: {reason}", where=where, todo="push the base again, or upgrade lorry"
            ) from error

    def serialize(self) -> bytes:
        """Return its bytes: always the same ones for the same base."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def all_files(self) -> tuple[BaseFile, ...]:
        """All files that are copied."""
        return (*self.files, *self.companions)

    @property
    def size_bytes(self) -> int:
        """The bytes of all files that belong to the base."""
        return sum(file.size for file in self.files)

    @property
    def hex(self) -> str:
        """The hex digits of the fingerprint, after which its folder is named."""
        return self.fingerprint.removeprefix("sha256:")


def find_named_folder(spec: BaseSpec) -> Path:
    """Return the folder of a base with a logical name; one on S3 is downloaded once.

    Raises:
        BaseModelError: This machine has no place for bases, or there is no such base in it, or what was
            downloaded is damaged.
        StoreError: S3 cannot be reached, or the cache cannot be written.
    """
    place = require_place(spec)
    if place.is_remote:
        return _fetch(spec, place)
    root = Path(place.address)
    folder = root / spec.name
    if not folder.is_dir():
        raise _refuse_missing(spec, place)
    if folder.resolve().parent != root.resolve():
        raise BaseModelError(
            "is a link that leads out of the place of bases",
            where=str(folder),
            todo="copy the base to there: lorry bases push FOLDER --name NAME",
        )
    return folder


def read_named_manifest(spec: BaseSpec) -> BaseManifest | None:
    """Return what was pushed under a name; None for a folder that was made by other means.

    Raises:
        BaseModelError: There is no such base, or its manifest is damaged.
        StoreError: S3 cannot be reached.
    """
    place = require_place(spec)
    if not place.is_remote:
        return read_folder_manifest(find_named_folder(spec))
    store, prefix = open_place(place)
    manifest = read_stored_manifest(store, f"{prefix}/{spec.name}")
    if manifest is None:
        raise _refuse_missing(spec, place)
    return manifest


def read_named_document(spec: BaseSpec, name: str) -> dict[str, Any]:
    """Return one JSON file of a base on S3; nothing else of it is downloaded.

    Raises:
        BaseModelError: There is no such base, or the file is missing or damaged.
        StoreError: S3 cannot be reached.
    """
    store, prefix = open_place(require_place(spec))
    manifest = read_named_manifest(spec)
    file = next((file for file in manifest.files if file.name == name), None) if manifest else None
    if manifest is None or file is None:
        raise BaseModelError(f"there is no {name}", where=spec.model, todo="name another base")
    key = f"{prefix}/{spec.name}/{manifest.hex}/{name}"
    stored = store.read(key)
    if stored is None or digest_bytes(stored.content) != file.sha256:
        raise _refuse_damaged(store.locate(key))
    try:
        document = json.loads(stored.content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BaseModelError("is not a JSON object", where=store.locate(key), todo="name another base")
    return document


def check_pushed(folder: Path, fingerprint: str) -> None:
    """Check that a base's files are the ones that were pushed.

    Raises:
        BaseModelError: They are others.
    """
    manifest = read_folder_manifest(folder)
    if manifest is not None and manifest.fingerprint != fingerprint:
        raise BaseModelError(
            f"its files are not those that were pushed: their fingerprint is {fingerprint}, "
            f"and {MANIFEST_NAME} says {manifest.fingerprint}",
            where=str(folder),
            todo="remove this folder; then push the base again, or let it be downloaded again if it is on S3",
        )


def read_folder_manifest(folder: Path) -> BaseManifest | None:
    """Return the manifest in a base's folder, if it has one.

    Raises:
        BaseModelError: It is damaged.
    """
    path = folder / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BaseModelError(
            f"cannot be read: {error.strerror}", where=str(path), todo="let this user read it"
        ) from error
    return BaseManifest.parse(content, where=str(path))


def read_stored_manifest(store: Store, key: str) -> BaseManifest | None:
    """Return the manifest of a base on S3, or None where no base is complete.

    Args:
        store: The store that holds it.
        key: The base's prefix in it.

    Raises:
        BaseModelError: It is damaged.
        StoreError: S3 cannot be reached.
    """
    path = f"{key}/{MANIFEST_NAME}"
    stored = store.read(path)
    return None if stored is None else BaseManifest.parse(stored.content, where=store.locate(path))


def list_names(place: BasePlace) -> list[str]:
    """Return the names in a place, sorted; what is below them need not be a whole base.

    Raises:
        StoreError: The place cannot be listed.
    """
    if place.is_remote:
        store, prefix = open_place(place)
        return [name for name in store.list_children(prefix) if _NAME.fullmatch(name)]
    root = Path(place.address)
    try:
        return sorted(path.name for path in root.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())
    except OSError as error:
        raise StoreError(
            f"cannot be listed: {error.strerror}",
            where=str(root),
            todo="set LORRY_BASES to a folder that is there, or mount the volume",
        ) from error


def require_place(spec: BaseSpec) -> BasePlace:
    """Return where a base with a logical name is to be found.

    Raises:
        BaseModelError: This machine has no place for bases.
    """
    if not spec.place.address:
        raise BaseModelError(
            "the base has a logical name, and LORRY_BASES does not say where bases are",
            where=spec.model,
            todo="set LORRY_BASES to the folder of base models, or to s3://BUCKET/PREFIX",
        )
    return spec.place


def open_place(place: BasePlace) -> tuple[Store, str]:
    """Return the store that holds a remote place, and the place's prefix in it.

    Raises:
        StoreError: The address is not that of a place in a bucket.
    """
    parent, _, prefix = place.address.rstrip("/").rpartition("/")
    return open_store(parent, place.s3), check_key(prefix)


def _fetch(spec: BaseSpec, place: BasePlace) -> Path:
    manifest = read_named_manifest(spec)
    if manifest is None:
        raise _refuse_missing(spec, place)
    folder = place.cache / manifest.hex
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Of several processes one downloads, and the others find what it downloaded.
        with hold_lock(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                _download(spec, place, manifest, folder)
    except OSError as error:
        raise StoreError(
            f"the base cannot be kept here: {error.strerror or error}",
            where=str(folder.parent),
            todo="free space there, or set LORRY_HOME to a folder with more",
        ) from error
    return folder


def _download(spec: BaseSpec, place: BasePlace, manifest: BaseManifest, folder: Path) -> None:
    """Download a base, verify each file, and give the folder its name at the end; the lock is held."""
    for leftover in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(leftover)
    store, prefix = open_place(place)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")

    def fetch_file(file: BaseFile) -> None:
        key, target = f"{prefix}/{spec.name}/{manifest.hex}/{file.name}", partial / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            store.download(key, target)
        except NotFoundError as error:
            raise _refuse_damaged(store.locate(key)) from error
        if digest_file(target) != file.sha256:
            raise _refuse_damaged(store.locate(key))

    try:
        for _ in map_concurrent(fetch_file, manifest.all_files, min(store.concurrency, _DOWNLOADS)):
            pass
        write_whole(partial / MANIFEST_NAME, manifest.serialize())
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refuse_damaged(where: str) -> BaseModelError:
    return BaseModelError(
        "is missing, or not what was pushed",
        where=where,
        todo="remove it from the bucket, and push the base again: lorry bases push FOLDER --name NAME",
    )


def _refuse_missing(spec: BaseSpec, place: BasePlace) -> BaseModelError:
    advice = "push it there: lorry bases push FOLDER --name NAME"
    with contextlib.suppress(LorryError):
        advice = f"{suggest_name(spec.name, list_names(place))}; or {advice}"
    return BaseModelError(f"there is no base {spec.name!r} in {place.address}", where=spec.model, todo=advice)
