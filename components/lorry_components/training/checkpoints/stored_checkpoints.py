"""Checkpoints in a store, where a step that starts on another machine with an empty disk finds them.

Layout, below a key of this very training: ``checkpoint-<step>.<upload>/<file>``, and ``complete.json`` beside
the files, which lists them with their sizes and digests. It is written last and removed first: without it
there is no checkpoint. Each upload has a folder of its own, so that one that was cut short does not block
another one, and is removed with the next.

Anyone who can write the store decides what a training that goes on from it learns, and no more: only
files of the names below are fetched, safetensors and JSON hold no code, and torch's own files (``.pt``,
``.pth``) are read by ``torch.load(weights_only=True)``, which runs none.
"""

import contextlib
import logging
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorry_components.training.checkpoints.checkpoint_files import find_checkpoint, name_checkpoint, read_step
from lorry_registry.errors import LorryError, NotFoundError
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.files.digests import canonical_json, digest_file
from lorry_registry.settings import IN_STORE
from lorry_registry.stores import S3Options, Store, open_store

_LOGGER = logging.getLogger(__name__)
_COMPLETE = "complete.json"
_FOLDER_IN_STORE = "checkpoints"
# What a checkpoint holds: ours first, then what Trainer and torch write. Nothing else goes up or comes down.
_FILE = (
    r"(trained|method)\.safetensors|trainer_state\.json|(optimizer|scheduler|scaler)\.pt"
    r"|rng_state(_[0-9]{1,5})?\.pth"
)
_FOLDER = re.compile(r"checkpoint-([0-9]{1,12})\.[0-9a-f]{32}")
_MAX_NOTE_CHARACTERS = 1000


class _StoredFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=rf"^({_FILE})$")]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class _Contents(BaseModel):
    """What is written last.

    Attributes:
        files: The files of the checkpoint.
        best: The step of the checkpoint with the best weights so far, if a training needs that as well.
        notes: The texts of small files beside the checkpoints, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: tuple[_StoredFile, ...]
    best: int | None = None
    notes: dict[str, Annotated[str, Field(max_length=_MAX_NOTE_CHARACTERS)]] = {}


@dataclass(frozen=True, slots=True)
class CheckpointPlace:
    """Where the checkpoints of one training are kept; it can be sent to another process, which opens it anew.

    Attributes:
        address: The address of a store.
        key: The key below which this very training has its checkpoints.
        options: Options of a store on S3 beyond boto3's own settings.
        notes: Names of small text files beside the checkpoints that are kept with each of them.
    """

    address: str
    key: str
    options: S3Options
    notes: tuple[str, ...] = ()

    def open(self) -> "StoredCheckpoints":
        """Return what is kept there.

        Raises:
            StoreError: No store serves the address.
        """
        return StoredCheckpoints(open_store(self.address, self.options), self.key, self.notes)


def find_place(
    given: str, name: str, *, store: str, options: S3Options, notes: tuple[str, ...] = ()
) -> CheckpointPlace | None:
    """Return where the checkpoints of a training are kept, or None if that is a folder on this machine.

    Args:
        given: A folder, ``store`` for a place in the store, or ``s3://bucket/prefix``.
        name: The name of this very training.
        store: The address of the store.
        options: Options of a store on S3 beyond boto3's own settings.
        notes: Names of small text files beside the checkpoints that are kept with each of them.
    """
    if given == IN_STORE:
        return CheckpointPlace(store, f"{_FOLDER_IN_STORE}/{name}", options, notes)
    return CheckpointPlace(given, name, options, notes) if "://" in given else None


@dataclass(frozen=True, slots=True)
class StoredCheckpoints:
    """The checkpoints of one training in a store.

    Attributes:
        store: Where they are.
        key: The key below which they are.
        notes: Names of small text files beside the checkpoints that are kept with each of them.
    """

    store: Store
    key: str
    notes: Sequence[str] = ()

    def keep(self, checkpoint: Path, *, best: int | None = None) -> None:
        """Upload a checkpoint, and remove those that are no longer needed once it is complete.

        Args:
            checkpoint: The folder that Trainer wrote; the other checkpoints lie beside it.
            best: The step whose weights are the best so far, if a training that goes on needs them.

        Raises:
            OSError: A file cannot be read.
            StoreError: The store cannot be written. What was complete before still is.
        """
        step = read_step(checkpoint)
        kept = {self._upload(checkpoint, best=best)}
        if best is not None and best != step:
            # It went up when it was written, unless the store was away.
            former = self._find_complete(best)
            kept.add(former or self._upload(name_checkpoint(checkpoint.parent, best), best=best))
        for name, number in self._list_folders():
            if number <= step and name not in kept:
                self._remove(name)

    def restore(self, folder: Path) -> Path | None:
        """Fetch the newest complete checkpoint, if it is newer than those here, and the best one if needed.

        One that is damaged is passed over with a warning; an older one may still be good.

        Args:
            folder: The folder of this very training; it may not exist yet.

        Returns:
            The newest checkpoint in the folder now; None: there is none.

        Raises:
            StoreError: The store cannot be read, or the folder cannot be written.
        """
        here = find_checkpoint(folder)
        for name, step in sorted(self._list_folders(), key=lambda entry: -entry[1]):
            if here is not None and step <= read_step(here):
                break
            try:
                self._restore(name, step, folder)
            except _UnusableError as error:
                _LOGGER.warning("%s is passed over: %s", self.store.locate(f"{self.key}/{name}"), error)
            else:
                break
        return find_checkpoint(folder)

    def remove_all(self) -> None:
        """Remove every checkpoint of this training, and what is left of interrupted uploads.

        Raises:
            StoreError: The store cannot be written.
        """
        for name, _ in self._list_folders():
            self._remove(name)

    def _upload(self, checkpoint: Path, *, best: int | None) -> str:
        name = f"{checkpoint.name}.{uuid.uuid4().hex}"
        paths = sorted(path for path in checkpoint.iterdir() if re.fullmatch(_FILE, path.name))
        files = [
            _StoredFile(name=path.name, size=path.stat().st_size, sha256=digest_file(path)) for path in paths
        ]
        for path in paths:
            self.store.upload(f"{self.key}/{name}/{path.name}", path)
        contents = _Contents(files=tuple(files), best=best, notes=dict(self._read_notes(checkpoint.parent)))
        document = contents.model_dump(mode="json", exclude_none=True)
        self.store.create(f"{self.key}/{name}/{_COMPLETE}", canonical_json(document))
        return name

    def _read_notes(self, folder: Path) -> Iterator[tuple[str, str]]:
        for note in self.notes:
            with contextlib.suppress(FileNotFoundError):
                yield note, (folder / note).read_text("utf-8")

    def _restore(self, name: str, step: int, folder: Path) -> None:
        contents = self._read_contents(name)
        if contents.best is not None and contents.best != step:
            self._restore_best(contents.best, folder)
        self._download(name, contents, name_checkpoint(folder, step))
        for note in set(self.notes) & contents.notes.keys():
            write_whole_text(folder / note, contents.notes[note])

    def _restore_best(self, best: int, folder: Path) -> None:
        target = name_checkpoint(folder, best)
        if target.exists():
            return
        name = self._find_complete(best)
        if name is None:
            raise _UnusableError(f"the checkpoint of step {best}, which has the best weights, is not there")
        self._download(name, self._read_contents(name), target)

    def _find_complete(self, step: int) -> str | None:
        for name in [name for name, number in self._list_folders() if number == step]:
            with contextlib.suppress(_UnusableError):
                self._read_contents(name)
                return name
        return None

    def _read_contents(self, name: str) -> _Contents:
        stored = self.store.read(f"{self.key}/{name}/{_COMPLETE}")
        if stored is None:
            raise _UnusableError("its upload was cut short")
        try:
            return _Contents.model_validate_json(stored.content)
        except ValidationError as error:
            raise _UnusableError(f"its {_COMPLETE} is damaged ({error.error_count()} faults)") from error

    def _download(self, name: str, contents: _Contents, target: Path) -> None:
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        partial.mkdir(parents=True)
        try:
            for entry in contents.files:
                path = partial / entry.name
                self.store.download(f"{self.key}/{name}/{entry.name}", path)
                if path.stat().st_size != entry.size or digest_file(path) != entry.sha256:
                    raise _UnusableError(f"{entry.name} is not what was uploaded")
            # What a killed training left half written.
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
        except NotFoundError as error:
            raise _UnusableError("one of its files is missing") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _list_folders(self) -> list[tuple[str, int]]:
        found = [_FOLDER.fullmatch(name) for name in self.store.list_children(self.key)]
        return [(match[0], int(match[1])) for match in found if match]

    def _remove(self, name: str) -> None:
        # From here on it is no checkpoint, wherever the removal ends.
        self.store.delete(f"{self.key}/{name}/{_COMPLETE}")
        for key in list(self.store.list_keys(f"{self.key}/{name}")):
            self.store.delete(key)


def warn_of_failure(call: Callable[[], object], loss: str) -> None:
    """Make a call to a store whose failure must not end the work.

    Args:
        call: The call.
        loss: What is missing after a failure, as a clause.
    """
    try:
        call()
    except (LorryError, OSError) as error:
        _LOGGER.warning("%s: %s", loss, error)


class _UnusableError(Exception):
    """Says why a checkpoint cannot be used."""
