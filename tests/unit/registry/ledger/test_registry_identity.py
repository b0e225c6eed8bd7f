"""A ledger belongs to one registry, whose id it names; it costs a reader no round trip to compare the two."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import StoreError
from lorry_registry.ledger.ledger import Ledger
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore, StoredDocument

Register = Callable[..., Any]


def open_at(root: Path, tmp_path: Path) -> Registry:
    return Registry(LocalStore(root), tmp_path / "another-cache")


@pytest.mark.parametrize("whole", [True, False])
def test_a_ledger_of_another_store_is_refused(
    register_adapter: Register, store: LocalStore, tmp_path: Path, whole: bool
) -> None:
    register_adapter()
    other = open_at(tmp_path / "other", tmp_path)
    own = other.registry_id
    for folder in ("tasks", "adapters") if whole else ("tasks",):
        shutil.copytree(store.root / folder, tmp_path / "other" / folder)
    for read in (
        lambda: other.resolve("reviews"),
        lambda: other.describe_task("reviews"),
        lambda: other.promote("reviews", 1, reason="a test"),
        lambda: other.list_versions("reviews"),
    ):
        with pytest.raises(StoreError, match="was copied from another store") as refusal:
            read()
        assert own in refusal.value.what
        assert "copy its whole store, with registry.json" in refusal.value.todo


def test_a_single_event_of_another_store_is_refused(
    register_adapter: Register, registry: Registry, store: LocalStore, tmp_path: Path
) -> None:
    register_adapter(seed=0)
    register_adapter(seed=1)
    path = store.root / "tasks" / "reviews" / "history" / "00000001.json"
    event = json.loads(path.read_bytes())
    path.write_text(json.dumps(event | {"registry": "0" * 32}, sort_keys=True, separators=(",", ":")))
    with pytest.raises(StoreError, match="a ledger of the registry 0000"):
        registry.ledger.read_history("reviews")


def test_a_part_of_a_store_without_its_id_is_refused(
    register_adapter: Register, store: LocalStore, tmp_path: Path
) -> None:
    register_adapter()
    shutil.copytree(store.root, tmp_path / "moved")
    (tmp_path / "moved" / "registry.json").unlink()
    with pytest.raises(StoreError, match=r"no registry\.json: only a part"):
        open_at(tmp_path / "moved", tmp_path).resolve("reviews")
    # A reader creates no id: that would make the copy a registry of its own.
    assert not (tmp_path / "moved" / "registry.json").exists()


def test_a_whole_store_may_be_moved(register_adapter: Register, store: LocalStore, tmp_path: Path) -> None:
    register_adapter(seed=0)
    _, event = register_adapter(seed=1)
    store.root.rename(tmp_path / "moved")
    moved = open_at(tmp_path / "moved", tmp_path)
    assert moved.resolve("reviews").version == event.version
    assert moved.rollback("reviews", reason="a test").registry == event.registry


class _FarStore(LocalStore):
    """A store that is not on this machine, and gives the head only once it was asked for the id as well."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[str] = []
        self._asked = threading.Event()

    def find_path(self, key: str) -> Path | None:
        return None

    def read(self, key: str) -> StoredDocument | None:
        self.reads.append(key)
        if key == "registry.json":
            self._asked.set()
        elif key.endswith("head.json"):
            assert self._asked.wait(30), "the head is read before the id is asked for"
        return super().read(key)


def test_far_away_the_id_is_read_in_the_time_of_the_head_and_once(
    register_adapter: Register, store: LocalStore, tmp_path: Path
) -> None:
    register_adapter(seed=0)
    far = _FarStore(store.root)
    reader = Registry(far, tmp_path / "another-cache")
    for _ in range(3):
        reader.resolve("reviews")
    assert far.reads.count("registry.json") == 1
    # Two round trips: the head with the id beside it, and the manifest.
    assert len(far.reads) == 1 + 3 * 2


def test_a_registry_that_is_founded_meanwhile_is_recognized(
    register_adapter: Register, store: LocalStore
) -> None:
    reader = Ledger(_FarStore(store.root))
    assert reader.read_state("reviews").head is None
    register_adapter()
    assert reader.read_state("reviews").champion_version == 1
