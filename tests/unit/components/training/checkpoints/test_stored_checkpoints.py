"""Checkpoints in a store: complete or absent, and none is taken that is not what was uploaded."""

import json
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from lorry_components.training.checkpoints.checkpoint_files import find_checkpoint
from lorry_components.training.checkpoints.checkpoint_uploads import CheckpointUploads
from lorry_components.training.checkpoints.stored_checkpoints import (
    StoredCheckpoints,
    find_place,
    warn_of_failure,
)
from lorry_registry.errors import StoreError
from lorry_registry.stores import LocalStore, S3Options, Store
from lorry_registry.stores.s3_store import RETRIES

KEY = "checkpoints/reviews-0123456789abcdef"


@pytest.fixture(params=["folder", "s3"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> StoredCheckpoints:
    if request.param == "s3":
        return StoredCheckpoints(request.getfixturevalue("s3_store"), KEY, ("mlflow_run",))
    return StoredCheckpoints(LocalStore(tmp_path / "store"), KEY, ("mlflow_run",))


def write(folder: Path, step: int, text: str = "") -> Path:
    """Write what looks like a checkpoint of Trainer."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    for name in ("trained.safetensors", "optimizer.pt", "rng_state_0.pth"):
        (checkpoint / name).write_text(f"{name} {step} {text}")
    (checkpoint / "training_args.bin").write_bytes(b"a pickle, by whoever wrote it")
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return checkpoint


def list_stored(shelf: StoredCheckpoints) -> list[str]:
    return [key.removeprefix(f"{KEY}/") for key in shelf.store.list_keys(KEY)]


def list_steps(shelf: StoredCheckpoints) -> list[int]:
    """Return the steps of what is complete."""
    complete = [name for name in list_stored(shelf) if name.endswith("/complete.json")]
    return sorted(int(name.split(".")[0].removeprefix("checkpoint-")) for name in complete)


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_another_machine_finds_the_newest_and_nothing_else_stays(
    shelf: StoredCheckpoints, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert shelf.restore(there) is None
    for step in (10, 20, 30):
        shelf.keep(write(here, step))
        assert list_steps(shelf) == [step]
    (here / "mlflow_run").write_text("0123")
    shelf.keep(write(here, 40))
    found = shelf.restore(there)
    assert found == there / "checkpoint-40"
    expected = read_all(here / "checkpoint-40")
    # Nobody loads this one, and nobody should.
    del expected["training_args.bin"]
    assert read_all(found) == expected
    assert (there / "mlflow_run").read_text() == "0123"
    assert sorted(path.name for path in there.iterdir()) == ["checkpoint-40", "mlflow_run"]
    shelf.remove_all()
    assert list_stored(shelf) == []
    shelf.remove_all()


def test_what_is_newer_on_the_disk_stays(shelf: StoredCheckpoints, tmp_path: Path) -> None:
    shelf.keep(write(tmp_path / "here", 10, "stored"))
    kept = write(tmp_path / "there", 20, "own")
    assert shelf.restore(tmp_path / "there") == kept
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["checkpoint-20"]
    # One that a kill left half written is no checkpoint, and is replaced by the whole one.
    (kept / "trainer_state.json").unlink()
    shelf.keep(write(tmp_path / "here", 20, "stored"))
    assert shelf.restore(tmp_path / "there") == kept
    assert (kept / "optimizer.pt").read_text() == "optimizer.pt 20 stored"


def test_a_checkpoint_comes_with_the_best_one(shelf: StoredCheckpoints, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shelf.keep(write(here, 10), best=10)
    shelf.keep(write(here, 20), best=10)
    shelf.keep(write(here, 30), best=10)
    assert list_steps(shelf) == [10, 30]
    # It went up once.
    (stored,) = {name.split("/")[0] for name in list_stored(shelf) if name.startswith("checkpoint-10.")}
    shelf.keep(write(here, 35), best=10)
    assert f"{stored}/complete.json" in list_stored(shelf)
    assert shelf.restore(there) == there / "checkpoint-35"
    assert read_all(there / "checkpoint-10")["optimizer.pt"] == b"optimizer.pt 10 "
    shelf.keep(write(here, 40), best=40)
    assert list_steps(shelf) == [40]


def test_a_checkpoint_without_the_best_one_it_needs_is_passed_over(
    shelf: StoredCheckpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.keep(write(tmp_path / "here", 10), best=10)
    shelf.keep(write(tmp_path / "here", 20), best=10)
    for name in [name for name in list_stored(shelf) if name.startswith("checkpoint-10")]:
        shelf.store.delete(f"{KEY}/{name}")
    assert shelf.restore(tmp_path / "there") is None
    assert "which has the best weights, is not there" in caplog.text


class BreakingStore(LocalStore):
    """A store that goes away after some writes."""

    def __init__(self, root: Path, writes: int) -> None:
        super().__init__(root)
        self.writes = writes

    def upload(self, key: str, source: Path) -> None:
        self._count()
        super().upload(key, source)

    def create(self, key: str, content: bytes) -> None:
        self._count()
        super().create(key, content)

    def _count(self) -> None:
        if self.writes == 0:
            raise StoreError("it is away", where=self.address)
        self.writes -= 1


@pytest.mark.parametrize("writes", range(5))
def test_a_half_uploaded_checkpoint_is_none(tmp_path: Path, writes: int) -> None:
    whole = StoredCheckpoints(LocalStore(tmp_path / "store"), KEY)
    whole.keep(write(tmp_path / "here", 10))
    breaking = StoredCheckpoints(BreakingStore(tmp_path / "store", writes), KEY)
    with pytest.raises(StoreError, match="it is away"):
        breaking.keep(write(tmp_path / "here", 20))
    assert whole.restore(tmp_path / f"there-{writes}") == tmp_path / f"there-{writes}" / "checkpoint-10"
    # The same step again, as a training that goes on comes to it, and what was half done is gone.
    whole.keep(tmp_path / "here" / "checkpoint-20")
    assert list_steps(whole) == [20]
    assert len({name.split("/")[0] for name in list_stored(whole)}) == 1


def damage(shelf: StoredCheckpoints, name: str, content: bytes | None) -> None:
    """Replace a file of the newest checkpoint, or remove it."""
    key = max(key for key in shelf.store.list_keys(KEY) if key.endswith(f"/{name}"))
    shelf.store.delete(key)
    if content is not None:
        shelf.store.create(key, content)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("optimizer.pt", b"optimizer.pt 20 !", "optimizer.pt is not what was uploaded"),
        ("optimizer.pt", b"", "optimizer.pt is not what was uploaded"),
        ("optimizer.pt", None, "one of its files is missing"),
        ("complete.json", None, "its upload was cut short"),
        ("complete.json", b"{", "its complete.json is damaged"),
        (
            "complete.json",
            b'{"files": [{"name": "../../x", "size": 1, "sha256": "sha256:%s"}]}' % (b"0" * 64),
            "its complete.json is damaged",
        ),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(
    shelf: StoredCheckpoints,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    content: bytes | None,
    reason: str,
) -> None:
    shelf.keep(write(tmp_path / "here", 10))
    # The older one was not removed: the process was killed before.
    StoredCheckpoints(_KeepingStore(shelf.store), KEY).keep(  # type: ignore[arg-type]
        write(tmp_path / "here", 20)
    )
    damage(shelf, name, content)
    with caplog.at_level(logging.WARNING):
        assert shelf.restore(tmp_path / "there") == tmp_path / "there" / "checkpoint-10"
    assert reason in caplog.text
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["checkpoint-10"]


def test_a_removal_that_was_cut_short_leaves_no_checkpoint(shelf: StoredCheckpoints, tmp_path: Path) -> None:
    shelf.keep(write(tmp_path / "here", 10))
    removed: list[str] = []

    class Store(_KeepingStore):
        def delete(self, key: str) -> None:
            if removed:
                raise StoreError("it is away", where=key)
            removed.append(key)
            shelf.store.delete(key)

    with pytest.raises(StoreError):
        StoredCheckpoints(Store(shelf.store), KEY).remove_all()  # type: ignore[arg-type]
    assert len(list_stored(shelf)) == 4
    assert shelf.restore(tmp_path / "there") is None
    assert "complete.json" in removed[0]


class _KeepingStore:
    """A store that forgets to remove."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def delete(self, key: str) -> None:
        """Remove nothing."""


def test_where_checkpoints_are() -> None:
    def find(given: str) -> tuple[str, str] | None:
        place = find_place(given, "reviews-01", store="s3://adapters/team", options=S3Options())
        return place and (place.address, place.key)

    assert find("") is None
    assert find("/srv/checkpoints") is None
    assert find("store") == ("s3://adapters/team", "checkpoints/reviews-01")
    assert find("s3://scratch/lorry") == ("s3://scratch/lorry", "reviews-01")


# In the background


class Training:
    """Calls what Trainer would call."""

    def __init__(self, folder: Path, uploads: CheckpointUploads) -> None:
        self.folder = folder
        self.uploads = uploads
        self.arguments = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none")

    def save(self, step: int, best: int | None = None) -> None:
        state, control = TrainerState(global_step=step, best_global_step=best), TrainerControl()
        control.should_save = True
        self.uploads.on_step_end(self.arguments, state, control)
        write(self.folder, step)
        self.uploads.on_save(self.arguments, state, control)


@pytest.fixture
def start(shelf: StoredCheckpoints, tmp_path: Path) -> Iterator[Callable[..., Training]]:
    def start_it(store: Store | None = None, *, keeps_best: bool = False) -> Training:
        stored = StoredCheckpoints(store or shelf.store, KEY)
        return Training(tmp_path / "here", CheckpointUploads(stored, keeps_best=keeps_best))

    return start_it


def test_uploads_end_with_the_training_and_after_an_error(
    start: Callable[..., Training], shelf: StoredCheckpoints, tmp_path: Path
) -> None:
    training = start(keeps_best=True)
    with pytest.raises(KeyboardInterrupt), training.uploads:
        training.save(10, best=10)
        training.save(20, best=10)
        raise KeyboardInterrupt
    assert list_steps(shelf) == [10, 20]
    assert find_checkpoint(tmp_path / "here") == tmp_path / "here" / "checkpoint-20"


def test_a_store_that_is_away_for_a_while_ends_no_training(
    start: Callable[..., Training], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = BreakingStore(tmp_path / "away", writes=2)
    training = start(store, keeps_best=True)
    with training.uploads:
        training.save(10, best=10)
        training.save(20, best=10)
        assert caplog.text.count("the last checkpoint is not in the store") == 1
        training.uploads._finish_upload()
        store.writes = 100
        training.save(30, best=10)
    assert caplog.text.count("the last checkpoint is not in the store") == 2
    # The best one went up after all, since a training that goes on needs it.
    assert list_steps(StoredCheckpoints(store, KEY)) == [10, 30]


def test_waiting_for_a_store_draws_no_random_number_of_the_training() -> None:
    before = random.getstate()
    assert 0 < RETRIES.choose_pause(3) <= 5
    assert random.getstate() == before


def test_only_failures_of_the_store_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    def fail(error: Exception) -> None:
        raise error

    warn_of_failure(lambda: fail(StoreError("it is away", where="s3://x")), "nothing was removed")
    assert "nothing was removed: s3://x: it is away" in caplog.text
    with pytest.raises(ValueError, match="a defect"):
        warn_of_failure(lambda: fail(ValueError("a defect")), "nothing was removed")
