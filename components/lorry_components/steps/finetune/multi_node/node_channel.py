"""Messages of a step and its nodes, in the store: the only thing that all of them reach.

Layout, below ``runs/<run>/nodes/<task>/``: ``work.json`` says what is to be trained, from the rows in
``data/``; ``result.json`` lists the files in ``result/`` and is written last; ``failure.json`` says why no
attempt can succeed; ``waiting.json`` changes as long as someone waits for the result.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorry_components.training.training_summary import ADAPTER_FOLDER, TrainingSummary
from lorry_registry.errors import (
    AdapterRejectedError,
    BaseModelError,
    ConflictError,
    Fault,
    InvalidDataError,
    InvalidTaskError,
    LorryError,
    MissingExtraError,
    NotFoundError,
    StoreError,
    TrainingError,
)
from lorry_registry.files.digests import canonical_json, digest_file
from lorry_registry.stores import Store
from lorry_registry.text.scrubbing import scrub_text

_WORK, _RESULT, _FAILURE, _WAITING = "work.json", "result.json", "failure.json", "waiting.json"
_Document = TypeVar("_Document", bound=BaseModel)
# The errors of a training that are raised anew as what they were; another one is raised as a training's.
_PLAIN: tuple[type[LorryError], ...] = (
    AdapterRejectedError,
    BaseModelError,
    MissingExtraError,
    StoreError,
    TrainingError,
)
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}"


class ExchangedFile(BaseModel):
    """A file, below a folder of the channel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=rf"^{_PART}(/{_PART}){{0,5}}$")]
    sha256: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class NodeWork(BaseModel):
    """What the nodes train.

    Attributes:
        task: The task as the step has it: a reference, or a document.
        run: The run.
        tracking_uri: MLflow's address as the step was given it; empty: the environment's.
        mlflow_run: The MLflow run that takes the metrics.
        checkpoints: The address of the store for checkpoints.
        checkpoints_key: The key below which this training has them.
        notes: What :class:`CheckpointPlace` keeps with each checkpoint.
        data: The prepared data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    run: str
    tracking_uri: str
    mlflow_run: str
    checkpoints: str
    checkpoints_key: str
    notes: tuple[str, ...]
    data: tuple[ExchangedFile, ...] = ()


class _Files(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    files: tuple[ExchangedFile, ...]


class _Fault(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str
    what: str
    remedy: str
    line: int | None


class _Failure(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    error: str
    what: str
    where: str
    todo: str
    faults: tuple[_Fault, ...] = ()


def name_channel(run: str, task: str) -> str:
    """Return the key below which a task's step and nodes exchange what they have to."""
    return f"runs/{run}/nodes/{task}"


@dataclass(frozen=True, slots=True)
class NodeChannel:
    """The channel between one step and its nodes: files in the store.

    Attributes:
        store: Where it is.
        key: The key below which it is.
    """

    store: Store
    key: str

    # The step's part

    def publish(self, work: NodeWork, data: Path) -> None:
        """Give the nodes their work; nothing of an earlier attempt is left.

        Raises:
            StoreError: The store cannot be written.
        """
        self.remove()
        files = self._upload("data", data, sorted(path for path in data.rglob("*") if path.is_file()))
        self._write(_WORK, work.model_copy(update={"data": files}))

    def beat(self) -> None:
        """Say that someone waits for the result.

        Raises:
            StoreError: The store cannot be written.
        """
        key = f"{self.key}/{_WAITING}"
        self.store.overwrite(key, canonical_json({"at": time.time_ns()}))

    def find_failure(self) -> LorryError | None:
        """Return why no attempt can succeed, if a node said so.

        Raises:
            StoreError: The store cannot be read.
        """
        stored = self.store.read(f"{self.key}/{_FAILURE}")
        if stored is None:
            return None
        failure = self._parse(_Failure, stored.content, _FAILURE)
        if failure.faults:
            listed = InvalidTaskError if failure.error == InvalidTaskError.__name__ else InvalidDataError
            faults = [Fault(**fault.model_dump()) for fault in failure.faults]
            return listed(failure.where, faults, todo=failure.todo)
        kind = next((one for one in _PLAIN if one.__name__ == failure.error), TrainingError)
        return kind(failure.what, where=failure.where, todo=failure.todo)

    @property
    def has_result(self) -> bool:
        """Whether the result is complete."""
        return self.store.read(f"{self.key}/{_RESULT}") is not None

    def fetch_result(self, target: Path) -> TrainingSummary:
        """Fetch the adapter and how it was trained into a folder, and check every file.

        Raises:
            StoreError: A file is missing or was changed.
            TrainingError: There is no result.
        """
        stored = self.store.read(f"{self.key}/{_RESULT}")
        if stored is None:
            raise TrainingError(
                "the nodes ended without a result",
                where=self.store.locate(self.key),
                todo="see the log of node 0 above",
            )
        self._download("result", self._parse(_Files, stored.content, _RESULT).files, target)
        return TrainingSummary.load(target)

    def remove(self) -> None:
        """Remove everything; a result is no result first of all.

        Raises:
            StoreError: The store cannot be written.
        """
        self.store.delete(f"{self.key}/{_RESULT}")
        self.store.delete_all(list(self.store.list_keys(self.key)))

    # The nodes' part

    def read_work(self) -> NodeWork:
        """Return what is to be trained.

        Raises:
            StoreError: It is not there, or damaged.
        """
        stored = self.store.read(f"{self.key}/{_WORK}")
        if stored is None:
            raise StoreError(
                "there is no work for this node",
                where=self.store.locate(f"{self.key}/{_WORK}"),
                todo="it was removed when the step ended; start the run again",
            )
        return self._parse(NodeWork, stored.content, _WORK)

    def fetch_data(self, work: NodeWork, folder: Path) -> None:
        """Fetch the prepared data.

        Raises:
            StoreError: A file is missing or was changed.
        """
        self._download("data", work.data, folder)

    def keep_result(self, target: Path) -> None:
        """Keep what the first node wrote: the adapter, how it was trained, and from which rows.

        Raises:
            StoreError: The store cannot be written.
        """
        paths = [path for path in target.iterdir() if path.is_file()]
        paths += [path for path in (target / ADAPTER_FOLDER).rglob("*") if path.is_file()]
        files = self._upload("result", target, sorted(paths))
        self._write(_RESULT, _Files(files=files))

    def fail(self, error: LorryError, secrets: frozenset[str] = frozenset()) -> None:
        """Say that no attempt can succeed; the first node that says so is the one that is heard.

        Raises:
            StoreError: The store cannot be written.
        """
        faults = error.faults if isinstance(error, InvalidTaskError | InvalidDataError) else ()
        failure = _Failure(
            error=type(error).__name__,
            what=scrub_text(error.what, secrets),
            where=scrub_text(error.where, secrets),
            todo=scrub_text(error.todo, secrets),
            faults=tuple(
                _Fault(
                    where=fault.where,
                    what=scrub_text(fault.what, secrets),
                    remedy=fault.remedy,
                    line=fault.line,
                )
                for fault in faults
            ),
        )
        try:
            self._write(_FAILURE, failure)
        except ConflictError:
            return

    def read_beat(self) -> bytes:
        """Return what changes as long as someone waits.

        Raises:
            StoreError: The store cannot be read.
        """
        stored = self.store.read(f"{self.key}/{_WAITING}")
        return b"" if stored is None else stored.content

    # Files

    def _upload(self, folder: str, root: Path, paths: Sequence[Path]) -> tuple[ExchangedFile, ...]:
        files = tuple(
            ExchangedFile(name=path.relative_to(root).as_posix(), sha256=digest_file(path)) for path in paths
        )
        for file in files:
            key = f"{self.key}/{folder}/{file.name}"
            # An attempt that was lost in the middle may have left another content.
            self.store.delete(key)
            self.store.upload(key, root / file.name)
        return files

    def _download(self, folder: str, files: Sequence[ExchangedFile], target: Path) -> None:
        for file in files:
            path = target / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            key = f"{self.key}/{folder}/{file.name}"
            try:
                self.store.download(key, path)
            except NotFoundError as error:
                raise self._refuse(key, "it is missing") from error
            if digest_file(path) != file.sha256:
                raise self._refuse(key, "it is not what was uploaded")

    def _write(self, name: str, document: BaseModel) -> None:
        self.store.create(f"{self.key}/{name}", canonical_json(document.model_dump(mode="json")))

    def _parse(self, kind: type[_Document], content: bytes, name: str) -> _Document:
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            raise self._refuse(f"{self.key}/{name}", f"{error.error_count()} faults") from error

    def _refuse(self, key: str, what: str) -> StoreError:
        return StoreError(what, where=self.store.locate(key), todo="start the run again")
