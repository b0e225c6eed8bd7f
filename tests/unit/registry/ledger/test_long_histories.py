"""What long histories and many tasks cost, in requests; and that nothing depends on copies of events."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import NotFoundError, StoreError
from lorry_registry.files.digests import canonical_json
from lorry_registry.ledger import ledger as ledger_module
from lorry_registry.ledger import packs
from lorry_registry.ledger.events import Event
from lorry_registry.ledger.ledger import Ledger
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.stores.concurrency import map_concurrent
from lorry_registry.stores.s3_store import S3Store

from fixtures.adapters import enroll

Make = Callable[..., Any]
PACKED = 5


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let packs hold five events, so that a few make a long history."""
    monkeypatch.setattr(packs, "PACKED", PACKED)
    monkeypatch.setattr(ledger_module, "PACKED", PACKED)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the requests to S3 as they leave the process: method and the last part of the address."""
    from botocore.httpsession import URLLib3Session

    found: list[str] = []
    original = URLLib3Session.send

    def send(session: Any, request: Any) -> Any:
        found.append(f"{request.method} {request.url.partition('?')[0].rpartition('/')[2]}")
        return original(session, request)

    monkeypatch.setattr(URLLib3Session, "send", send)
    return found


@pytest.fixture
def on_s3(s3_store: S3Store, tmp_path: Path, make_adapter: Make) -> Registry:
    """Return a registry on S3 whose store was probed."""
    registry = Registry(s3_store, tmp_path / "cache")
    s3_store.check_writable()
    return registry


def _register(registry: Registry, make_adapter: Make, count: int, *, task: str = "reviews") -> list[Event]:
    events = []
    for seed in range(1, count + 1):
        adapter = make_adapter(task=task, seed=seed)
        registry.publish(adapter.path, adapter.manifest)
        champion = registry.ledger.read_state(task).champion_version
        events.append(
            registry.register(
                task, adapter.adapter_id, promote=True, judged_champion=champion, reasons=("better",)
            )
        )
    return events


# Requests on S3


def test_a_champion_is_resolved_in_two_requests_however_long_its_history(
    on_s3: Registry, make_adapter: Make, sent: list[str]
) -> None:
    _register(on_s3, make_adapter, 3)
    fresh = Registry(S3Store(on_s3.store.address), Path("unused"))
    sent.clear()
    assert fresh.resolve("reviews").version == 3
    # A process reads the registry's id once, at the same time as its first head.
    assert (sorted(sent[:2]), sent[2:]) == (["GET head.json", "GET registry.json"], ["GET manifest.json"])
    for registry in (fresh, on_s3):
        sent.clear()
        assert registry.resolve("reviews").version == 3
        assert sent == ["GET head.json", "GET manifest.json"]


def test_a_wrong_name_costs_no_request_for_each_task(
    on_s3: Registry, make_adapter: Make, sent: list[str]
) -> None:
    for task in ("reviews", "films", "tweets"):
        _register(on_s3, make_adapter, 1, task=task)
    sent.clear()
    with pytest.raises(NotFoundError, match="did you mean 'reviews'"):
        on_s3.resolve("reviws")
    # The second GET is boto3's: only its answer tells a missing key from a missing bucket.
    assert [request.partition(" ")[0] for request in sent] == ["GET"] * len(sent)
    assert len(sent) <= 3


def test_tasks_are_listed_with_one_request_for_each(
    on_s3: Registry, make_adapter: Make, sent: list[str]
) -> None:
    tasks = [f"task-{number}" for number in range(5)]
    for task in tasks:
        _register(on_s3, make_adapter, 1, task=task)
    sent.clear()
    assert [entry.task for entry in on_s3.list_tasks()] == tasks
    assert len(sent) == 1 + len(tasks)


@pytest.mark.usefixtures("small_packs")
def test_a_history_takes_a_request_for_each_pack_and_each_event_after_them(
    on_s3: Registry, make_adapter: Make, sent: list[str]
) -> None:
    events = _register(on_s3, make_adapter, 2 * PACKED + 3)
    sent.clear()
    assert on_s3.ledger.read_history("reviews") == events
    assert sent.count("GET head.json") == 1
    read = ("00000005.jsonl", "00000010.jsonl", "00000011.json", "00000012.json")
    assert sorted(sent[1:]) == [f"GET {name}" for name in read]


@pytest.mark.parametrize(
    "decide",
    [
        lambda registry: registry.promote("reviews", 1, reason="a test"),
        lambda registry: registry.rollback("reviews", reason="a test"),
        lambda registry: registry.withdraw("reviews", reason="a test"),
    ],
    ids=["promote", "rollback", "withdraw"],
)
def test_a_change_of_the_champion_reads_the_head_and_each_event_once(
    on_s3: Registry, make_adapter: Make, sent: list[str], decide: Callable[[Registry], Event]
) -> None:
    _register(on_s3, make_adapter, 3)
    sent.clear()
    decide(on_s3)
    read = [request for request in sent if request.startswith("GET ")]
    assert [name for name in read if read.count(name) > 1 and name != "GET manifest.json"] == []
    assert read.count("GET head.json") == 1


@pytest.mark.usefixtures("small_packs")
def test_registering_costs_the_same_at_the_end_of_a_long_history(
    on_s3: Registry, make_adapter: Make, sent: list[str]
) -> None:
    _register(on_s3, make_adapter, 1)
    counts = []
    for seed in range(2, PACKED + 3):
        adapter = make_adapter(seed=seed)
        on_s3.publish(adapter.path, adapter.manifest)
        sent.clear()
        on_s3.register(
            "reviews", adapter.adapter_id, promote=True, judged_champion=seed - 1, reasons=("better",)
        )
        counts.append(len(sent))
    # The one after which events are packed reads them.
    del counts[PACKED - 2]
    assert len(set(counts)) == 1, counts
    assert counts[0] <= 9


def test_requests_run_at_once(on_s3: Registry, make_adapter: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        _register(on_s3, make_adapter, 1, task=f"task-{number}")
    together = threading.Barrier(4, timeout=30)
    read_state = on_s3.ledger.read_state

    def wait(task: str) -> Any:
        together.wait()
        return read_state(task)

    monkeypatch.setattr(on_s3.ledger, "read_state", wait)
    assert len(on_s3.list_tasks()) == 4


# Packs are copies


@pytest.fixture
def packed(small_packs: None, registry: Registry, make_adapter: Make, store: LocalStore) -> list[Event]:
    """Return the events of a history of which ten are packed."""
    events = _register(registry, make_adapter, 2 * PACKED + 2)
    assert store.list_children("tasks/reviews/packs") == ["00000005.jsonl", "00000010.jsonl"]
    return events


@pytest.mark.parametrize("content", [b"", b"{}", b"\n\n\n\n", b"\xff\xfe", b"[]\n[]\n[]\n[]\n[]"])
def test_a_pack_that_is_none_is_passed_over(
    packed: list[Event], registry: Registry, store: LocalStore, content: bytes
) -> None:
    (store.root / "tasks/reviews/packs/00000005.jsonl").write_bytes(content)
    assert registry.ledger.read_history("reviews") == packed


def test_a_pack_of_other_events_is_not_believed(
    packed: list[Event], registry: Registry, store: LocalStore
) -> None:
    path = store.root / "tasks/reviews/packs/00000005.jsonl"
    forged = json.loads(path.read_bytes().splitlines()[2]) | {"by": "somebody else"}
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], canonical_json(forged), *lines[3:]]))
    assert registry.ledger.read_history("reviews") == packed
    (store.root / "tasks/reviews/packs/00000010.jsonl").unlink()
    assert registry.ledger.read_history("reviews") == packed


def test_verifying_looks_at_each_event_in_its_place(
    packed: list[Event], registry: Registry, store: LocalStore
) -> None:
    (store.root / "tasks/reviews/history/00000002.json").unlink()
    assert registry.ledger.read_history("reviews") == packed
    with pytest.raises(StoreError, match="event 2 of the history is missing"):
        registry.ledger.read_history("reviews", packed=False)
    with pytest.raises(StoreError, match="event 2 of the history is missing"):
        list(registry.verify_task("reviews"))


@pytest.mark.usefixtures("small_packs")
def test_a_pack_that_was_not_written_is_written_with_the_next_one(
    registry: Registry, make_adapter: Make, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = LocalStore.create

    def fail(self: LocalStore, key: str, content: bytes) -> None:
        if "/packs/" in key:
            raise StoreError("the disk is full")
        create(self, key, content)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "create", fail)
        _register(registry, make_adapter, PACKED)
    assert store.list_children("tasks/reviews/packs") == []
    for number in range(PACKED):
        registry.promote("reviews", 1 + number % 2, reason="to and fro")
    assert store.list_children("tasks/reviews/packs") == ["00000005.jsonl", "00000010.jsonl"]


@pytest.mark.parametrize("sequence", [10**6, 2**63, 10**300])
def test_a_head_that_names_a_number_without_end_is_refused_at_once(
    packed: list[Event], registry: Registry, store: LocalStore, sequence: int
) -> None:
    head = store.root / "tasks/reviews/head.json"
    document = json.loads(head.read_bytes())
    document["event"]["sequence"] = sequence
    head.write_bytes(canonical_json(document))
    for is_packed in (True, False):
        with pytest.raises(StoreError):
            registry.ledger.read_history("reviews", packed=is_packed)


# Claims


def _list_claims(store: LocalStore) -> set[str]:
    names = store.list_children("tasks/reviews/claims")
    return {f"sha256:{name.removesuffix('.json')}" for name in names}


def test_a_new_adapter_is_known_to_be_new_without_the_history(
    registry: Registry, make_adapter: Make, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = _register(registry, make_adapter, 2)
    assert _list_claims(store) == {event.adapter_id for event in events}

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the history is read")

    monkeypatch.setattr(Ledger, "_read_event", fail)
    adapter = make_adapter(seed=3)
    event = enroll(registry, adapter, promote=False)
    assert event.version == 3


def test_an_adapter_that_was_claimed_by_a_killed_writer_is_registered_once(
    registry: Registry, make_adapter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(registry, make_adapter, 1)
    adapter = make_adapter(seed=2)
    registry.publish(adapter.path, adapter.manifest)

    def register() -> Event:
        return registry.register(
            "reviews", adapter.adapter_id, promote=True, judged_champion=1, reasons=("better",)
        )

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "compare_and_swap", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            register()
    event = register()
    assert event.version == 2
    assert register() == event
    assert len(registry.list_versions("reviews")) == 2


def test_a_version_that_was_appended_directly_is_claimed_too(registry: Registry, make_adapter: Make) -> None:
    events = _register(registry, make_adapter, 1)
    adapter = make_adapter(seed=2)
    registry.publish(adapter.path, adapter.manifest)
    # Past the registry, as nothing of Lorry's does.
    state = registry.ledger.read_state("reviews")
    event = registry.ledger.append(
        state,
        action="register",
        adapter_id=adapter.adapter_id,
        version=None,
        promote=False,
        by="x",
        reasons=(),
    )
    again = registry.register("reviews", adapter.adapter_id, promote=False, judged_champion=None, reasons=())
    assert (again, events[0].version) == (event, 1)


def test_of_two_that_register_one_adapter_at_once_one_does(
    registry: Registry, make_adapter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(registry, make_adapter, 1)
    adapter = make_adapter(seed=2)
    registry.publish(adapter.path, adapter.manifest)

    def register() -> Event:
        return registry.register(
            "reviews", adapter.adapter_id, promote=False, judged_champion=None, reasons=("x",)
        )

    read_state, first = registry.ledger.read_state, []

    def overtake(task: str) -> Any:
        state = read_state(task)
        monkeypatch.setattr(registry.ledger, "read_state", read_state)
        first.append(register())
        return state

    monkeypatch.setattr(registry.ledger, "read_state", overtake)
    # Whoever comes second looks again, and finds that it is registered.
    assert register() == first[0]
    assert len(registry.list_versions("reviews")) == 2


# Concurrent calls


def test_results_stand_in_the_order_of_the_items() -> None:
    assert list(map_concurrent(lambda number: number * 2, range(100), 4)) == list(range(0, 200, 2))
    assert list(map_concurrent(lambda number: number * 2, range(3), 1)) == [0, 2, 4]


def test_one_call_at_once_runs_in_the_callers_own_thread() -> None:
    assert set(map_concurrent(lambda _: threading.get_ident(), range(3), 1)) == {threading.get_ident()}
    assert threading.get_ident() not in set(map_concurrent(lambda _: threading.get_ident(), range(3), 2))


def test_only_a_few_items_are_in_hand_at_once() -> None:
    taken = []

    def count() -> Iterator[int]:
        for number in range(10_000):
            taken.append(number)
            yield number

    results = map_concurrent(lambda number: number, count(), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) <= 2 * 4 + 3
    results.close()  # type: ignore[attr-defined]


def test_an_error_comes_in_its_place_and_ends_the_rest() -> None:
    called = []

    def fail_at_three(number: int) -> int:
        called.append(number)
        if number == 3:
            raise StoreError("three")
        return number

    results = map_concurrent(fail_at_three, range(1000), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(StoreError, match="three"):
        next(results)
    assert len(called) < 30
