"""What ``lorry gc`` takes and what it leaves, on a folder and on S3."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import NotFoundError, StoreError
from lorry_registry.leases.content_leases import LEASES, TOMBSTONES, Tombstone
from lorry_registry.ledger.promotion import find_collection, list_collected
from lorry_registry.maintenance.collection import Plan, Rules, Sweep, plan_collection, sweep_store
from lorry_registry.maintenance.collection import sweep as sweep_module
from lorry_registry.maintenance.task_deletion import delete_task, restore_task
from lorry_registry.registry import Registry, adapter_hex, adapter_key
from lorry_registry.stores import LocalStore, Store

from fixtures.adapters import enroll

Collect = Callable[..., tuple[Plan, Sweep]]
Wait = Callable[..., None]


def _list_reasons(plan: Plan) -> dict[tuple[str | None, int | None], str]:
    return {(kept.task, kept.version): kept.reason for kept in plan.kept}


def _list_sound(registry: Registry, task: str = "reviews") -> list[int]:
    return [version.number for version, error in registry.verify_task(task) if error is None]


def _list_left(store: Store, adapter_id: str) -> list[str]:
    return [key.rpartition("/")[2] for key in store.list_keys(adapter_key(adapter_id))]


def test_champion_rollback_and_the_last_versions_stay(
    registry: Registry, six_versions: list[Any], wait: Wait, collect: Collect
) -> None:
    wait(days=8)
    plan, sweep = collect(keep_last=1)
    assert _list_reasons(plan) == {
        ("reviews", 2): "a rollback would lead to it",
        ("reviews", 4): "the champion",
        ("reviews", 6): "one of the last 1 versions",
    }
    assert sorted((finding.task, finding.version, finding.kind) for finding in sweep.removed) == [
        ("reviews", number, "version") for number in (1, 3, 5)
    ]
    assert not sweep.problems
    assert not sweep.spared
    assert _list_sound(registry) == [2, 4, 6]
    sizes = [adapter.manifest.size_bytes for adapter in six_versions]
    assert sum(finding.size for finding in sweep.removed) > sum(sizes[index] for index in (0, 2, 4))
    for index in (0, 2, 4):
        assert _list_left(registry.store, six_versions[index].adapter_id) == []
    assert list(registry.store.list_keys(TOMBSTONES)) == []
    assert registry.rollback("reviews", reason="it was better").champion_after == 2


def test_the_history_says_what_was_collected(
    registry: Registry, six_versions: list[Any], wait: Wait, collect: Collect
) -> None:
    wait(days=8)
    collect(keep_last=1)
    events = registry.ledger.read_history("reviews")
    assert events[-1].action == "collect"
    assert events[-1].by == "the night"
    assert list_collected(events[-1]) == [1, 3, 5]
    assert events[-1].champion_before == events[-1].champion_after == 4
    found = find_collection(events, 3)
    assert found is not None
    assert find_collection(events, 4) is None
    for action in (
        lambda: registry.resolve("reviews", 3),
        lambda: registry.promote("reviews", 3, reason="why not"),
    ):
        with pytest.raises(NotFoundError, match=r"its files were collected on .* by the night") as caught:
            action()
        assert "reviews v3" in str(caught.value)
    collected = {version.number: str(error) for version, error in registry.verify_task("reviews") if error}
    assert sorted(collected) == [1, 3, 5]
    assert all("were collected" in text for text in collected.values())


def test_a_second_collection_finds_nothing(
    registry: Registry, six_versions: list[Any], wait: Wait, collect: Collect
) -> None:
    wait(days=8)
    collect(keep_last=1)
    events = registry.ledger.read_history("reviews")
    plan, _ = collect(keep_last=1)
    assert [finding for finding in plan.findings if finding.kind != "lease"] == []
    assert registry.ledger.read_history("reviews") == events


def test_nothing_young_is_taken(registry: Registry, six_versions: list[Any], collect: Collect) -> None:
    plan, sweep = collect(keep_last=1)
    assert sweep.removed == []
    assert _list_reasons(plan)["reviews", 1] == "in use within the grace period"
    assert _list_sound(registry) == [1, 2, 3, 4, 5, 6]


def test_a_collected_version_comes_back_when_it_is_trained_again(
    registry: Registry, six_versions: list[Any], wait: Wait, collect: Collect
) -> None:
    wait(days=8)
    collect(keep_last=1)
    adapter = six_versions[2]
    event = enroll(registry, adapter, judged_champion=4, reasons=("better now",))
    assert (event.action, event.version) == ("promote", 3)
    assert registry.resolve("reviews").version == 3
    assert _list_sound(registry) == [2, 3, 4, 6]


def test_what_no_ledger_names_goes(
    registry: Registry, make_adapter: Callable[..., Any], wait: Wait, collect: Collect, tmp_path: Path
) -> None:
    unused, cut_short = make_adapter(seed=1), make_adapter(seed=2)
    registry.publish(unused.path, unused.manifest)
    registry.store.upload(f"{adapter_key(cut_short.adapter_id)}/README.md", cut_short.path / "README.md")
    assert collect()[1].removed == []
    wait(days=8)
    kinds = {finding.adapter_id: finding.kind for finding in collect()[1].removed if finding.adapter_id}
    assert kinds == {unused.adapter_id: "adapter", cut_short.adapter_id: "files"}
    assert list(registry.store.list_keys("adapters")) == []


def test_an_unreadable_ledger_keeps_what_it_may_name(
    registry: Registry,
    six_versions: list[Any],
    register_adapter: Callable[..., Any],
    make_adapter: Callable[..., Any],
    wait: Wait,
    collect: Collect,
) -> None:
    film, _ = register_adapter("films", 1)
    unused = make_adapter(task="songs", seed=9)
    registry.publish(unused.path, unused.manifest)
    registry.store.replace("tasks/films/head.json", b"no JSON")
    wait(days=8)
    plan, sweep = collect(keep_last=1)
    assert list(plan.problems) == ["the ledger of films"]
    reasons = {kept.adapter_id: kept.reason for kept in plan.kept}
    for adapter in (film, unused):
        assert reasons[adapter.adapter_id] == "the ledger of films cannot be read, and may name it"
    # What is certain goes all the same.
    assert [finding.version for finding in sweep.removed if finding.task] == [
        finding.version for finding in plan.findings if finding.task
    ]
    assert _list_sound(registry) == [2, 4, 6]


@pytest.mark.parametrize("what", ["missing event", "missing head"])
def test_a_history_with_a_hole_is_unreadable(
    registry: Registry, register_adapter: Callable[..., Any], wait: Wait, collect: Collect, what: str
) -> None:
    for seed in (1, 2, 3, 4):
        register_adapter(seed=seed)
    missing = "tasks/reviews/head.json" if what == "missing head" else "tasks/reviews/history/00000002.json"
    registry.store.delete(missing)
    wait(days=8)
    plan, sweep = collect(keep_last=1)
    assert list(plan.problems) == ["the ledger of reviews"]
    assert [finding for finding in sweep.removed if finding.kind != "lease"] == []


def test_a_missing_manifest_of_a_champion_is_reported_and_its_files_stay(
    registry: Registry, register_adapter: Callable[..., Any], wait: Wait, collect: Collect
) -> None:
    adapter, _ = register_adapter()
    registry.store.delete(f"{adapter_key(adapter.adapter_id)}/manifest.json")
    wait(days=8)
    plan, sweep = collect()
    assert list(plan.problems) == ["reviews v1"]
    assert [finding for finding in sweep.removed if finding.kind != "lease"] == []
    assert len(_list_left(registry.store, adapter.adapter_id)) == 3


# Deleted tasks


def test_a_task_that_was_deleted_long_ago_is_collected_and_its_name_can_be_used_again(
    registry: Registry,
    six_versions: list[Any],
    register_adapter: Callable[..., Any],
    wait: Wait,
    collect: Collect,
) -> None:
    delete_task(registry, "reviews", reason="replaced", by="ann")
    wait(days=8)
    _, sweep = collect(keep_last=10)
    assert len([finding for finding in sweep.removed if finding.kind == "version"]) == 6
    assert {finding.reason[:23] for finding in sweep.removed if finding.kind == "version"} == {
        "the task was deleted on"
    }
    assert list(registry.store.list_keys("adapters")) == []
    event = restore_task(registry, "reviews", reason="the name is needed", by="bob")
    assert event.champion_after is None
    assert registry.ledger.read_state("reviews").deleted is None
    assert register_adapter(seed=7)[1].version == 7
    assert registry.resolve("reviews").version == 7


# Leases


@pytest.fixture
def unused(registry: Registry, make_adapter: Callable[..., Any]) -> Any:
    """Return an adapter that was published by a process that is gone, and never registered."""
    adapter = make_adapter(seed=1)
    registry.publish(adapter.path, adapter.manifest)
    with registry.leases.hold(adapter_hex(adapter.adapter_id)):
        pass
    return adapter


def test_what_is_held_stays_even_without_a_grace_period(
    registry: Registry, unused: Any, wait: Wait, collect: Collect
) -> None:
    wait(seconds=3)
    with registry.leases.hold(adapter_hex(unused.adapter_id)):
        plan, sweep = collect(seconds=0)
        assert [kept.reason for kept in plan.kept] == ["held by a lease: it is being written or read"]
        assert sweep.removed == []
    assert len(list(registry.store.list_keys(LEASES))) == 0
    assert [finding.adapter_id for finding in collect(seconds=0)[1].removed] == [unused.adapter_id]


def test_a_publication_is_safe_until_the_ledger_names_it(
    registry: Registry, unused: Any, store: Store, wait: Wait, collect: Collect
) -> None:
    wait(days=8)
    assert [
        finding.adapter_id for finding in plan_collection(registry, Rules()).findings if finding.adapter_id
    ]
    wait(days=-8)
    # The files are old by now; publishing them again writes none of them.
    registry.publish(unused.path, unused.manifest)
    wait(seconds=600)
    assert [kept.reason[:4] for kept in collect(seconds=0)[0].kept] == ["held"]
    assert len(list(store.list_keys(LEASES))) == 1
    registry.register("reviews", unused.adapter_id, promote=True, judged_champion=None, reasons=())
    assert list(store.list_keys(LEASES)) == []


def test_a_lease_that_is_not_renewed_ends(
    registry: Registry, unused: Any, wait: Wait, collect: Collect
) -> None:
    with registry.leases.hold(adapter_hex(unused.adapter_id)):
        wait(minutes=16)
        _, sweep = collect(minutes=1)
    assert {finding.kind for finding in sweep.removed} == {"adapter", "lease"}


def test_whoever_comes_after_the_plan_is_spared(registry: Registry, unused: Any, wait: Wait) -> None:
    wait(seconds=3)
    rules = Rules(1, timedelta())
    plan = plan_collection(registry, rules)
    assert [finding.kind for finding in plan.findings] == ["adapter"]
    with registry.leases.hold(adapter_hex(unused.adapter_id)):
        sweep = sweep_store(registry, plan, rules)
    assert [reason for _, reason in sweep.spared] == ["it came into use"]
    registry.register("reviews", unused.adapter_id, promote=True, judged_champion=None, reasons=())
    sweep = sweep_store(registry, plan, rules)
    assert [reason for _, reason in sweep.spared] == ["it came into use: the champion"]
    assert list(registry.store.list_keys(TOMBSTONES)) == []
    assert _list_sound(registry) == [1]


def test_an_adapter_that_another_gc_is_removing_is_left_to_it(
    registry: Registry, unused: Any, wait: Wait, collect: Collect
) -> None:
    wait(seconds=3)
    other = Tombstone(registry.store, adapter_hex(unused.adapter_id))
    assert other.try_raise(registry.store.read_clock())
    _, sweep = collect(seconds=0)
    assert [reason for _, reason in sweep.spared] == ["another gc is removing it"]
    other.lower()
    assert [finding.kind for finding in collect(seconds=0)[1].removed] == ["adapter"]


def test_a_tombstone_that_cannot_be_read_goes_when_it_is_old(
    registry: Registry, unused: Any, store: Store, wait: Wait, collect: Collect
) -> None:
    store.overwrite(f"{TOMBSTONES}/{adapter_hex(unused.adapter_id)}", b"from the future")
    wait(seconds=3)
    assert [reason for _, reason in collect(seconds=0)[1].spared] == ["another gc is removing it"]
    wait(minutes=16)
    assert [finding.kind for finding in collect(seconds=0)[1].removed] == ["tombstone"]
    assert [finding.kind for finding in collect(seconds=0)[1].removed] == ["adapter"]


def test_a_publisher_waits_for_a_gc_and_publishes_then(
    registry: Registry, unused: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tombstone = Tombstone(store, adapter_hex(unused.adapter_id))
    assert tombstone.try_raise(store.read_clock())

    def finish() -> None:
        store.delete_all(list(store.list_keys(adapter_key(unused.adapter_id))))
        tombstone.lower()

    timer = threading.Timer(0.8, finish)
    timer.start()
    registry.publish(unused.path, unused.manifest)
    timer.join()
    registry.register("reviews", unused.adapter_id, promote=True, judged_champion=None, reasons=())
    assert _list_sound(registry) == [1]


def test_a_reader_holds_a_lease_and_removes_it(
    registry: Registry, unused: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    download = store.download

    def watch(key: str, target: Path) -> None:
        seen.append(len(list(store.list_keys(LEASES))))
        download(key, target)

    monkeypatch.setattr(store, "download", watch)
    registry.fetch(unused.adapter_id)
    assert seen == [1] * 4
    assert list(store.list_keys(LEASES)) == []
    seen.clear()
    registry.fetch(unused.adapter_id)
    assert seen == []


def test_a_reader_who_may_not_write_reads(
    registry: Registry, unused: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("access denied")

    for name in ("overwrite", "create", "compare_and_swap", "delete"):
        monkeypatch.setattr(store, name, refuse)
    assert (registry.fetch(unused.adapter_id) / "manifest.json").is_file()


def test_what_goes_while_it_is_read_is_one_clear_error(
    registry: Registry, unused: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = store.download

    def remove_and_download(key: str, target: Path) -> None:
        store.delete_all(list(store.list_keys(adapter_key(unused.adapter_id))))
        download(key, target)

    monkeypatch.setattr(store, "download", remove_and_download)
    with pytest.raises(NotFoundError, match="there is no adapter"):
        registry.export(unused.adapter_id, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_resolving_writes_nothing(
    registry: Registry, six_versions: list[Any], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a write")

    for name in ("overwrite", "create", "compare_and_swap", "upload", "delete"):
        monkeypatch.setattr(store, name, refuse)
    assert registry.resolve("reviews").version == 4
    assert registry.list_tasks()


# Everything else that lies about


def test_checkpoints_go_by_age_and_their_last_word_first(
    registry: Registry, store: Store, wait: Wait, collect: Collect
) -> None:
    for run in ("old", "going-on"):
        store.create(f"checkpoints/{run}/checkpoint-1.0/trained.safetensors", b"weights")
        store.create(f"checkpoints/{run}/complete.json", b"{}")
    assert collect()[1].removed == []
    wait(days=8)
    plan = plan_collection(registry, Rules())
    assert {finding.keys[0] for finding in plan.findings} == {
        "checkpoints/old/complete.json",
        "checkpoints/going-on/complete.json",
    }
    time.sleep(1.1)
    store.create("checkpoints/going-on/checkpoint-2.0/trained.safetensors", b"weights")
    sweep = sweep_store(registry, plan, Rules())
    assert [(finding.name, finding.size) for finding in sweep.removed] == [("checkpoints/old", 9)]
    assert [reason for _, reason in sweep.spared] == ["its training goes on"]
    assert list(store.list_keys("checkpoints/old")) == []
    assert len(list(store.list_keys("checkpoints/going-on"))) == 3


def test_unfinished_writes_go_after_the_grace_period_and_a_day(
    registry: Registry, store: Store, wait: Wait, collect: Collect, request: pytest.FixtureRequest
) -> None:
    if isinstance(store, LocalStore):
        store.create("t/a", b"")
        (store.root / ".scratch" / "left").write_bytes(b"half")
    else:
        server, bucket = request.getfixturevalue("s3_server"), store.address.split("/")[2]
        key = store.address.removeprefix(f"s3://{bucket}/") + "/adapters/x/weights"
        server.open_client().create_multipart_upload(Bucket=bucket, Key=key)
    wait(hours=23)
    assert collect(seconds=0)[1].removed == []
    wait(hours=2)
    assert collect(days=2)[1].removed == []
    assert [finding.kind for finding in collect(seconds=0)[1].removed] == ["upload"]
    assert list(store.list_unfinished(["adapters"])) == []


def test_what_is_not_ours_is_left_alone(
    registry: Registry, store: Store, wait: Wait, collect: Collect
) -> None:
    store.create("adapters/notes.txt", b"mine")
    store.create("adapters/backup/manifest.json", b"mine")
    store.create("other/thing", b"mine")
    wait(days=80)
    plan, sweep = collect()
    assert sorted(plan.strange) == ["adapters/backup/manifest.json", "adapters/notes.txt"]
    assert sweep.removed == []
    assert plan.problems == {}


def test_a_store_that_refuses_stops_one_batch_and_not_the_others(
    registry: Registry,
    six_versions: list[Any],
    store: Store,
    wait: Wait,
    collect: Collect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.create("checkpoints/old/complete.json", b"{}")
    wait(days=8)
    delete_all = store.delete_all

    def refuse_adapters(keys: Any) -> None:
        if any(key.startswith("adapters/") for key in keys):
            raise StoreError("access denied")
        delete_all(keys)

    monkeypatch.setattr(store, "delete_all", refuse_adapters)
    _, sweep = collect(keep_last=1)
    assert len(sweep.problems) == 1
    assert "checkpoints" in {finding.kind for finding in sweep.removed}
    assert list(store.list_keys(TOMBSTONES)) == []
    monkeypatch.undo()
    assert _list_sound(registry) == [1, 2, 3, 4, 5, 6]


def test_a_store_that_takes_too_long_is_left_for_the_next_time(
    registry: Registry, unused: Any, wait: Wait, collect: Collect, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait(seconds=3)
    with monkeypatch.context() as patch:
        patch.setattr(sweep_module, "DELETING_SECONDS", -1.0)
        _, sweep = collect(seconds=0)
    assert ["takes too long" in str(error) for error in sweep.problems.values()] == [True]
    assert len(_list_left(registry.store, unused.adapter_id)) == 4
    wait(seconds=3)
    assert [finding.kind for finding in collect(seconds=0)[1].removed] == ["adapter"]


def test_files_that_were_published_after_the_plan_stay(
    registry: Registry, make_adapter: Callable[..., Any], store: Store, wait: Wait
) -> None:
    adapter = make_adapter(seed=1)
    for name in ("README.md", "adapter_config.json"):
        store.upload(f"{adapter_key(adapter.adapter_id)}/{name}", adapter.path / name)
    wait(seconds=3)
    rules = Rules(1, timedelta())
    plan = plan_collection(registry, rules)
    assert [finding.kind for finding in plan.findings] == ["files"]
    enroll(registry, adapter)
    sweep = sweep_store(registry, plan, rules)
    assert [reason for _, reason in sweep.spared] == ["it was written again"]
    assert _list_sound(registry) == [1]
