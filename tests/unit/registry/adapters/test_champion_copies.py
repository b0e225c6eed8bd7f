"""The head carries a copy of its champion's manifest: a list of tasks reads nothing else."""

from collections.abc import Callable
from typing import Any

import pytest

from lorry_registry.errors import StoreError
from lorry_registry.ledger.events import Head
from lorry_registry.maintenance.task_deletion import delete_task, restore_task
from lorry_registry.manifest import MANIFEST_NAME, Manifest
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore, StoredDocument

HEAD = "tasks/reviews/head.json"


@pytest.fixture
def read_keys(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the keys that are read from the store, as they are read."""
    keys: list[str] = []
    read = type(store).read

    def note(self: LocalStore, key: str) -> StoredDocument | None:
        keys.append(key)
        return read(self, key)

    monkeypatch.setattr(type(store), "read", note)
    return keys


def _read_head(store: LocalStore) -> Head:
    stored = store.read(HEAD)
    assert stored is not None
    return Head.model_validate_json(stored.content)


def _write_head(store: LocalStore, head: Head) -> None:
    (store.root / HEAD).write_bytes(head.serialize())


def _change_champion(store: LocalStore, **changes: object) -> None:
    head = _read_head(store)
    assert head.champion is not None
    _write_head(store, head.model_copy(update={"champion": head.champion.model_copy(update=dict(changes))}))


def _name_champion(registry: Registry) -> tuple[int, Manifest | None]:
    entry = registry.describe_task("reviews")
    assert entry.champion is not None
    return entry.champion.version, entry.manifest


def test_a_list_of_tasks_reads_their_heads_alone(
    registry: Registry, two_tasks: dict[str, Any], read_keys: list[str]
) -> None:
    listed = {entry.task: entry.manifest for entry in registry.list_tasks()}
    assert listed == {"films": None, "reviews": two_tasks["reviews v2"].manifest}
    assert [key for key in read_keys if key.startswith("adapters/")] == []


def test_a_head_without_a_copy_is_listed_all_the_same(
    registry: Registry, store: LocalStore, two_tasks: dict[str, Any], read_keys: list[str]
) -> None:
    _change_champion(store, manifest=None)
    assert _name_champion(registry) == (2, two_tasks["reviews v2"].manifest)
    assert any(key.endswith(MANIFEST_NAME) for key in read_keys)


def test_a_rollback_and_a_promotion_by_hand_copy_the_manifest_too(
    registry: Registry, two_tasks: dict[str, Any], read_keys: list[str]
) -> None:
    registry.rollback("reviews", reason="worse in use")
    read_keys.clear()
    assert _name_champion(registry) == (1, two_tasks["reviews v1"].manifest)
    registry.promote("reviews", 3, reason="tried")
    registry.rollback("reviews", reason="worse in use")
    registry.promote("reviews", 3, reason="tried again")
    read_keys.clear()
    assert _name_champion(registry) == (3, two_tasks["reviews v3"].manifest)
    assert [key for key in read_keys if key.startswith("adapters/")] == []


def test_a_task_that_comes_back_has_its_copy_again(
    registry: Registry, store: LocalStore, two_tasks: dict[str, Any]
) -> None:
    delete_task(registry, "reviews", reason="unused")
    deleted = _read_head(store).deleted
    assert deleted is not None
    assert deleted.champion is not None
    assert deleted.champion.manifest is not None
    restore_task(registry, "reviews", reason="used after all")
    assert _name_champion(registry) == (2, two_tasks["reviews v2"].manifest)


@pytest.mark.parametrize("other", ["reviews v1", "films v1"])
def test_a_copy_of_another_manifest_is_refused(
    registry: Registry, store: LocalStore, two_tasks: dict[str, Any], other: str
) -> None:
    _change_champion(store, manifest=two_tasks[other].manifest.serialize().decode())
    with pytest.raises(StoreError, match="another manifest than its champion's"):
        registry.describe_task("reviews")


def test_a_large_manifest_is_not_copied(
    registry: Registry, store: LocalStore, register_adapter: Callable[..., Any], read_keys: list[str]
) -> None:
    adapter, _ = register_adapter(seed=1, labels=tuple(f"a class with a long name, {n}" for n in range(2000)))
    head = _read_head(store)
    assert head.champion is not None
    assert head.champion.manifest is None
    assert _name_champion(registry) == (1, adapter.manifest)
