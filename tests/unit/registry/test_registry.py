import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import AdapterRejectedError, ConflictError, NotFoundError, StoreError
from lorry_registry.files.digests import canonical_json, digest_bytes
from lorry_registry.ledger.events import Event
from lorry_registry.ledger.version_status import find_statuses, name_version_status
from lorry_registry.maintenance.task_deletion import delete_task, restore_task
from lorry_registry.manifest import CONFIG_NAME, MANIFEST_NAME, WEIGHTS_NAME
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

from fixtures.adapters import enroll

Make = Callable[..., Any]
StoredFile = Callable[[str, str], Path]


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_an_adapter_goes_all_the_way_round(
    registry: Registry, make_adapter: Make, register_adapter: Make, tmp_path: Path
) -> None:
    adapter, event = register_adapter()
    assert (event.version, event.action, event.is_promotion, event.by) == (
        1,
        "register",
        True,
        "the pipeline",
    )
    found = registry.resolve("reviews")
    assert (found.task, found.version, found.adapter_id) == ("reviews", 1, adapter.adapter_id)
    assert found.manifest == adapter.manifest
    assert found.path is not None
    assert found.uri == found.path.as_uri()
    assert found.promoted_at == event.at
    assert sorted(path.name for path in found.path.iterdir()) == sorted(
        path.name for path in adapter.path.iterdir()
    )
    fetched = registry.fetch(adapter.adapter_id)
    assert (fetched / WEIGHTS_NAME).read_bytes() == (adapter.path / WEIGHTS_NAME).read_bytes()
    assert registry.export(adapter.adapter_id, tmp_path / "out") == adapter.manifest
    assert [(version.number, error) for version, error in registry.verify_task("reviews")] == [(1, None)]
    (entry,) = registry.list_tasks()
    assert (entry.task, entry.versions, entry.manifest) == ("reviews", 1, adapter.manifest)


# Publishing


def test_publishing_again_is_harmless(registry: Registry, store: LocalStore, make_adapter: Make) -> None:
    adapter = make_adapter()
    assert registry.publish(adapter.path, adapter.manifest) == adapter.adapter_id
    assert registry.publish(adapter.path, adapter.manifest) == adapter.adapter_id
    assert len(list(store.list_keys("adapters"))) == 4


def test_a_wrong_folder_is_refused_and_does_not_block_the_right_one(
    registry: Registry, store: LocalStore, make_adapter: Make
) -> None:
    right, wrong = make_adapter(seed=1), make_adapter(seed=2)
    with pytest.raises(AdapterRejectedError, match=r"adapter_model\.safetensors was changed"):
        registry.publish(wrong.path, right.manifest)
    assert list(store.list_keys("adapters")) == []
    assert registry.publish(right.path, right.manifest) == right.adapter_id


def test_what_no_reader_would_load_is_not_published(
    registry: Registry, store: LocalStore, make_adapter: Make
) -> None:
    from lorry_registry.adapters.verification import describe_file

    adapter = make_adapter()
    config = json.loads((adapter.path / CONFIG_NAME).read_bytes()) | {"auto_mapping": {"parent_library": "x"}}
    (adapter.path / CONFIG_NAME).write_text(json.dumps(config), "utf-8")
    files = tuple(describe_file(adapter.path / entry.name) for entry in adapter.manifest.files)
    with pytest.raises(AdapterRejectedError, match="would import code"):
        registry.publish(adapter.path, adapter.manifest.model_copy(update={"files": files}))
    assert list(store.list_keys("adapters")) == []


def test_other_files_of_the_folder_stay_behind(
    registry: Registry, store: LocalStore, make_adapter: Make
) -> None:
    adapter = make_adapter()
    (adapter.path / "optimizer.pt").write_bytes(b"x")
    registry.publish(adapter.path, adapter.manifest)
    assert not [key for key in store.list_keys("adapters") if "optimizer" in key]
    registry.fetch(adapter.adapter_id)


# Registering


def test_a_refused_candidate_is_a_challenger_without_a_champion(
    registry: Registry, register_adapter: Make
) -> None:
    _, event = register_adapter(promote=False)
    assert (event.version, event.champion_after) == (1, None)
    with pytest.raises(NotFoundError, match="no version has passed the gate yet"):
        registry.resolve("reviews")
    assert registry.resolve("reviews", 1).promoted_at is None
    (entry,) = registry.list_tasks()
    assert (entry.champion, entry.manifest, entry.versions) == (None, None, 1)


def test_an_adapter_keeps_its_version(registry: Registry, register_adapter: Make) -> None:
    first = register_adapter(seed=1)[1]
    register_adapter(seed=2)
    again = register_adapter(seed=1)[1]
    assert again == first
    assert [version.number for version in registry.list_versions("reviews")] == [1, 2]
    champion = registry.ledger.require_state("reviews").champion
    assert champion is not None
    assert champion.version == 2


def test_a_candidate_that_passes_later_is_promoted_then(registry: Registry, register_adapter: Make) -> None:
    register_adapter(seed=1)
    refused = register_adapter(seed=2, promote=False)[1]
    passed = register_adapter(seed=2, promote=True)[1]
    assert (passed.action, passed.version, passed.is_promotion) == ("promote", refused.version, True)
    assert len(registry.list_versions("reviews")) == 2
    assert registry.resolve("reviews").version == 2


def test_a_second_refusal_is_recorded_if_it_was_judged_anew(
    registry: Registry, register_adapter: Make
) -> None:
    adapter, first = register_adapter(seed=1, promote=False)

    def refuse(*, is_renewed: bool) -> Event:
        return registry.register(
            "reviews",
            adapter.adapter_id,
            promote=False,
            judged_champion=None,
            reasons=("still too weak",),
            details={"gate": {"minimum": 0.5}},
            is_renewed=is_renewed,
        )

    assert refuse(is_renewed=False) == first
    again = refuse(is_renewed=True)
    assert (again.action, again.version, again.is_promotion) == ("judge", 1, False)
    assert again.details == {"gate": {"minimum": 0.5}}
    assert [version.number for version in registry.list_versions("reviews")] == [1]
    status = find_statuses(registry.ledger.read_history("reviews"))[1]
    assert (status.decision, status.reasons) == ("refused", ("still too weak",))
    # A champion is judged by nobody any more.
    promoted = registry.promote("reviews", 1, reason="by hand")
    assert refuse(is_renewed=True) == first
    assert registry.ledger.read_history("reviews")[-1] == promoted


def test_a_retried_registration_does_not_undo_a_rollback(registry: Registry, register_adapter: Make) -> None:
    register_adapter(seed=1)
    second = register_adapter(seed=2)[1]
    registry.rollback("reviews", reason="worse than it looked")
    assert register_adapter(seed=2)[1] == second
    assert registry.resolve("reviews").version == 1


def test_a_judgement_on_a_former_champion_is_refused(
    registry: Registry, make_adapter: Make, register_adapter: Make
) -> None:
    register_adapter(seed=1)
    register_adapter(seed=2)
    adapter = make_adapter(seed=3)
    registry.publish(adapter.path, adapter.manifest)
    with pytest.raises(ConflictError, match="the champion is now v2, but the gate compared with v1"):
        registry.register("reviews", adapter.adapter_id, promote=True, judged_champion=1, reasons=())
    event = registry.register(
        "reviews", adapter.adapter_id, promote=False, judged_champion=1, reasons=("late",)
    )
    assert (event.version, event.champion_after) == (3, 2)


def test_an_adapter_that_was_not_published_is_not_registered(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match="there is no adapter"):
        registry.register("reviews", digest_bytes(b"x"), promote=True, judged_champion=None, reasons=())
    assert registry.ledger.list_tasks() == []


def test_an_adapter_of_another_task_is_not_registered(registry: Registry, make_adapter: Make) -> None:
    adapter = make_adapter(task="films")
    registry.publish(adapter.path, adapter.manifest)
    with pytest.raises(AdapterRejectedError, match="was trained for 'films'"):
        registry.register("reviews", adapter.adapter_id, promote=True, judged_champion=None, reasons=())


def test_a_name_stands_beside_every_event(
    registry: Registry, make_adapter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise KeyError("uid 12345")

    monkeypatch.setattr("getpass.getuser", fail)
    adapter = make_adapter()
    event = enroll(registry, adapter)
    assert event.by == "unknown"


# Moving


def test_promotion_and_rollback_move_the_champion_and_say_why(
    registry: Registry, register_adapter: Make
) -> None:
    adapters = [register_adapter(seed=seed)[0] for seed in (1, 2, 3)]
    event = registry.promote("reviews", 1, reason="v3 is slow", by="ada")
    assert (event.action, event.by, event.reasons) == ("promote", "ada", ("v3 is slow",))
    assert registry.resolve("reviews").adapter_id == adapters[0].adapter_id
    event = registry.rollback("reviews", reason="it was not")
    assert (event.action, event.version) == ("rollback", 3)
    assert registry.resolve("reviews").adapter_id == adapters[2].adapter_id
    assert [entry.action for entry in registry.ledger.read_history("reviews")][-2:] == ["promote", "rollback"]


def test_moves_that_lead_nowhere_are_refused(registry: Registry, register_adapter: Make) -> None:
    register_adapter()
    with pytest.raises(ConflictError, match="is already the champion"):
        registry.promote("reviews", 1, reason="x")
    with pytest.raises(NotFoundError, match="there is no version 2"):
        registry.promote("reviews", 2, reason="x")
    with pytest.raises(NotFoundError, match="no earlier champion"):
        registry.rollback("reviews", reason="x")
    with pytest.raises(NotFoundError, match="did you mean 'reviews'"):
        registry.rollback("revews", reason="x")


def test_the_only_champion_can_be_withdrawn(registry: Registry, register_adapter: Make) -> None:
    register_adapter(promote=False)
    registry.promote("reviews", 1, reason="to try it", by="bob")
    event = registry.withdraw("reviews", reason="it is rude", by="ada")
    assert (event.action, event.version) == ("rollback", 1)
    assert (event.champion_before, event.champion_after) == (1, None)
    assert registry.describe_task("reviews").champion is None
    status = find_statuses(registry.ledger.read_history("reviews"))[1]
    assert (name_version_status(status), status.role) == ("rolled back", "challenger")
    with pytest.raises(NotFoundError, match=r"v1 was withdrawn on \d{4}-\d\d-\d\d by ada: it is rude\n"):
        registry.resolve("reviews")
    assert registry.resolve("reviews", 1).version == 1
    with pytest.raises(NotFoundError, match="v1 was withdrawn"):
        registry.withdraw("reviews", reason="x")
    # Neither what was refused meanwhile nor a deletion that was undone hides it.
    register_adapter(seed=1, promote=False)
    delete_task(registry, "reviews", reason="x")
    with pytest.raises(NotFoundError, match="was deleted"):
        registry.withdraw("reviews", reason="x")
    restore_task(registry, "reviews", reason="x")
    with pytest.raises(NotFoundError, match="v1 was withdrawn"):
        registry.resolve("reviews")
    registry.promote("reviews", 1, reason="it was not")
    assert registry.resolve("reviews").version == 1


def test_a_withdrawal_holds_for_the_champion_that_it_is_about(
    registry: Registry, register_adapter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_adapter(seed=1)
    swap = registry.store.compare_and_swap
    intruders = [lambda: register_adapter(seed=2)]

    def interfere(*arguments: Any) -> str:
        if intruders:
            intruders.pop()()
        return swap(*arguments)

    monkeypatch.setattr(registry.store, "compare_and_swap", interfere)
    with pytest.raises(ConflictError, match="the champion changed meanwhile: it was v1, and is now v2"):
        registry.withdraw("reviews", reason="x")
    assert registry.resolve("reviews").version == 2


def test_a_damaged_version_is_not_promoted(
    registry: Registry, register_adapter: Make, stored_file: StoredFile
) -> None:
    damaged = register_adapter(seed=1)[0]
    register_adapter(seed=2)
    _flip(stored_file(damaged.adapter_id, WEIGHTS_NAME))
    for move in (
        lambda: registry.promote("reviews", 1, reason="x"),
        lambda: registry.rollback("reviews", reason="x"),
    ):
        with pytest.raises(AdapterRejectedError, match="was changed"):
            move()
    assert registry.resolve("reviews").version == 2


# Reading


def test_a_manifest_that_was_changed_is_not_believed(
    registry: Registry, register_adapter: Make, stored_file: StoredFile
) -> None:
    adapter = register_adapter()[0]
    path = stored_file(adapter.adapter_id, MANIFEST_NAME)
    path.write_bytes(path.read_bytes().replace(b'"lora"', b'"hira"'))
    for read in (
        lambda: registry.resolve("reviews"),
        lambda: registry.fetch(adapter.adapter_id),
    ):
        with pytest.raises(AdapterRejectedError, match="the manifest was changed"):
            read()
    # The list shows what the head has a copy of, whose digest is right.
    assert [entry.manifest for entry in registry.list_tasks()] == [adapter.manifest]
    path.unlink()
    with pytest.raises(NotFoundError, match="there is no adapter"):
        registry.resolve("reviews")


def test_a_damaged_copy_in_the_cache_is_replaced(registry: Registry, register_adapter: Make) -> None:
    adapter = register_adapter()[0]
    folder = registry.fetch(adapter.adapter_id)
    _flip(folder / WEIGHTS_NAME)
    (folder / "extra").mkdir()
    assert registry.fetch(adapter.adapter_id) == folder
    assert (folder / WEIGHTS_NAME).read_bytes() == (adapter.path / WEIGHTS_NAME).read_bytes()
    assert not (folder / "extra").exists()


def test_an_export_fills_an_empty_folder_and_accepts_its_own(
    registry: Registry, register_adapter: Make, tmp_path: Path
) -> None:
    adapter = register_adapter()[0]
    (tmp_path / "out").mkdir()
    registry.export(adapter.adapter_id, tmp_path / "out")
    registry.export(adapter.adapter_id, tmp_path / "out")
    registry.export(adapter.adapter_id, tmp_path / "new" / "deep" / ".." / "other")
    assert (tmp_path / "new" / "other" / MANIFEST_NAME).exists()


def test_an_export_overwrites_nothing(registry: Registry, register_adapter: Make, tmp_path: Path) -> None:
    adapter, other = register_adapter(seed=1)[0], register_adapter(seed=2)[0]
    registry.export(adapter.adapter_id, tmp_path / "out")
    with pytest.raises(ConflictError, match="the folder exists and is not this adapter"):
        registry.export(other.adapter_id, tmp_path / "out")
    (tmp_path / "file").write_text("mine", "utf-8")
    with pytest.raises(ConflictError, match="the folder cannot be filled: Not a directory"):
        registry.export(adapter.adapter_id, tmp_path / "file")
    with pytest.raises(ConflictError, match="Not a directory"):
        registry.export(adapter.adapter_id, tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text("utf-8") == "mine"


def test_a_full_disk_while_exporting_leaves_nothing(
    registry: Registry, register_adapter: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = register_adapter()[0]

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        registry.export(adapter.adapter_id, tmp_path / "out")
    assert "out" in str(caught.value)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


# A ledger under another name


def test_a_ledger_that_was_forged_for_another_name_is_refused_by_its_manifests(
    registry: Registry, store: LocalStore, register_adapter: Callable[..., Any]
) -> None:
    for seed in (1, 2):
        register_adapter(seed=seed)
    copy = store.root / "tasks" / "fraud"
    shutil.copytree(store.root / "tasks" / "reviews", copy)
    # With the other name in each event, and a head that was edited to fit.
    digest = None
    for path in sorted((copy / "history").iterdir()):
        event = json.loads(path.read_bytes()) | {"previous": digest, "task": "fraud"}
        path.write_bytes(canonical_json(event))
        digest = digest_bytes(path.read_bytes())
    head = json.loads((copy / "head.json").read_bytes())
    (copy / "head.json").write_bytes(canonical_json(head | {"task": "fraud", "event": event}))
    assert [str(error) for _, error in registry.verify_task("fraud")] == [
        f"fraud: {adapter} was trained for 'reviews'\n  -> register it under its own task"
        for adapter in (version.adapter_id for version in registry.list_versions("reviews"))
    ]
    for attempt in (
        lambda: registry.resolve("fraud"),
        lambda: registry.resolve("fraud", 1),
        lambda: registry.describe_task("fraud"),
        lambda: registry.promote("fraud", 1, reason="x"),
    ):
        with pytest.raises(AdapterRejectedError, match="was trained for 'reviews'"):
            attempt()
