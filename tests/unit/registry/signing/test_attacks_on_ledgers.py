"""Who can write to the store, but has no key, changes no ledger for a reader who requires signatures."""

import json
import logging
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import ConflictError, StoreError, UsageError
from lorry_registry.ledger.events import Event, Head
from lorry_registry.maintenance.task_signing import attest_history
from lorry_registry.registry import Registry
from lorry_registry.signing.event_signatures import encode_event
from lorry_registry.stores import LocalStore

from fixtures.signing import KeyPair, OpenRegistry, add_version

MakeAdapter = Callable[..., Any]
TASK = "reviews"
_REFUSED = r"signature of an event is wrong|not signed"


@pytest.fixture
def writer(open_registry: OpenRegistry, make_adapter: MakeAdapter, ours: KeyPair) -> Registry:
    """Return a registry with our key, and two signed versions in it."""
    registry = open_registry(key=ours)
    for seed in (0, 1):
        add_version(registry, make_adapter, seed)
    return registry


def head_path(store: LocalStore) -> Path:
    return store.root / "tasks" / TASK / "head.json"


def event_path(store: LocalStore, sequence: int) -> Path:
    return store.root / "tasks" / TASK / "history" / f"{sequence:08d}.json"


def read_head(store: LocalStore) -> Head:
    return Head.model_validate_json(head_path(store).read_bytes())


def write_head(store: LocalStore, head: Head) -> None:
    head_path(store).write_bytes(head.serialize())


def test_a_signed_ledger_is_read_and_moved(
    writer: Registry, open_registry: OpenRegistry, ours: KeyPair, theirs: KeyPair
) -> None:
    for trusted in ((ours, theirs), (theirs, ours)):
        assert open_registry(trusted=trusted).resolve(TASK).version == 2
    reader = open_registry()
    assert reader.resolve(TASK).version == 2
    writer.rollback(TASK, reason="a test")
    assert reader.resolve(TASK).version == 1
    assert reader.resolve(TASK, 2).version == 2
    events = reader.ledger.read_history(TASK)
    assert all(event.signature and event.state for event in events)


def test_a_champion_that_was_moved_in_the_head_alone_is_refused(
    writer: Registry, open_registry: OpenRegistry, store: LocalStore
) -> None:
    head = read_head(store)
    first = writer.ledger.read_history(TASK)[0]
    champion = head.champion
    assert champion is not None
    moved = champion.model_copy(update={"version": 1, "adapter_id": first.adapter_id, "manifest": None})
    write_head(store, head.model_copy(update={"champion": moved}))
    with pytest.raises(StoreError, match="the head is not the one that its event was signed with"):
        open_registry().resolve(TASK)
    # Without a policy nobody would notice before the history is read.
    assert open_registry("none").resolve(TASK).version == 1


@pytest.mark.parametrize("keeps_signature", [True, False])
def test_an_event_that_was_forged_with_all_digests_right_is_refused(
    writer: Registry, open_registry: OpenRegistry, store: LocalStore, keeps_signature: bool
) -> None:
    head, first = read_head(store), writer.ledger.read_history(TASK)[0]
    event = head.event
    now = datetime.now(UTC)
    forged = Event.model_validate(
        event.model_dump()
        | {"sequence": 3, "action": "rollback", "version": 1, "adapter_id": first.adapter_id, "at": now}
        | {"champion_before": 2, "champion_after": 1, "previous": event.digest, "reasons": ("trust me",)}
        | {"signature": event.model_dump()["signature"] if keeps_signature else None}
    )
    moved = {"version": 1, "adapter_id": first.adapter_id, "promoted_at": now}
    evil = Head.model_validate(head.model_dump() | {"champion": moved, "event": forged.model_dump()})
    forged = forged.model_copy(update={"state": evil.digest_state()})
    event_path(store, 2).write_bytes(event.serialize())
    write_head(store, evil.model_copy(update={"event": forged}))
    assert open_registry("none").resolve(TASK).version == 1
    for read in (lambda each: each.resolve(TASK), lambda each: each.ledger.read_history(TASK)):
        with pytest.raises(StoreError, match=_REFUSED):
            read(open_registry())
    # Nor does an honest writer put his signature over it.
    with pytest.raises(StoreError, match=_REFUSED):
        writer.promote(TASK, 2, reason="a test")


def test_a_reason_that_was_changed_in_the_whole_chain_is_refused(
    writer: Registry, open_registry: OpenRegistry, store: LocalStore
) -> None:
    head = read_head(store)
    path = event_path(store, 1)
    first = Event.model_validate_json(path.read_bytes()).model_copy(update={"reasons": ("forged",)})
    path.write_bytes(first.serialize())
    second = head.event.model_copy(update={"previous": first.digest})
    write_head(store, head.model_copy(update={"event": second}))
    event_path(store, 2).write_bytes(second.serialize())
    assert open_registry("none").ledger.read_history(TASK)[0].reasons == ("forged",)
    with pytest.raises(StoreError, match="signature of an event is wrong"):
        open_registry().ledger.read_history(TASK)


def test_a_ledger_that_another_key_signed_is_refused(
    open_registry: OpenRegistry, make_adapter: MakeAdapter, theirs: KeyPair
) -> None:
    add_version(open_registry("none", key=theirs), make_adapter, 0)
    with pytest.raises(StoreError, match="not by a trusted key"):
        open_registry().resolve(TASK)
    assert open_registry(trusted=(theirs,)).resolve(TASK).version == 1


def test_the_signature_of_an_adapter_is_none_of_an_event() -> None:
    # model-signing signs under the type of an in-toto statement.
    assert encode_event(b"{}") == b"DSSEv1 33 application/vnd.lorry.event+json 2 {}".replace(
        b"33", str(len("application/vnd.lorry.event+json")).encode()
    )
    assert b"in-toto" not in encode_event(b"{}")


def test_signatures_that_were_stripped_are_missed(
    writer: Registry, open_registry: OpenRegistry, store: LocalStore
) -> None:
    head = read_head(store)
    path = event_path(store, 1)
    bare = {"signature": None, "state": None}
    first = Event.model_validate_json(path.read_bytes()).model_copy(update=bare)
    path.write_bytes(first.serialize())
    second = head.event.model_copy(update={**bare, "previous": first.digest})
    event_path(store, 2).write_bytes(second.serialize())
    write_head(store, head.model_copy(update={"event": second}))
    assert open_registry("none").resolve(TASK).version == 2
    with pytest.raises(StoreError, match="the newest event is not signed"):
        open_registry().resolve(TASK)


def test_an_unsigned_event_below_a_signed_head_is_found(
    open_registry: OpenRegistry, make_adapter: MakeAdapter, ours: KeyPair
) -> None:
    add_version(open_registry("none"), make_adapter, 0)
    # A writer who requires nothing signs on top of it.
    signer = open_registry("none", key=ours)
    add_version(signer, make_adapter, 1)
    reader = open_registry()
    assert reader.resolve(TASK).version == 2
    with pytest.raises(StoreError, match="event 1 is not signed by a trusted key"):
        reader.ledger.read_history(TASK)
    assert attest_history(signer, TASK, reason="looked at it") is not None
    assert len(reader.ledger.read_history(TASK)) == 3
    # Nor does it sign again what it has signed itself, whoever else it trusts.
    assert attest_history(open_registry("none", key=ours, trusted=()), TASK, reason="again") is None


def test_an_attestation_stands_for_what_was_before_it_and_for_nothing_after(
    open_registry: OpenRegistry, make_adapter: MakeAdapter, ours: KeyPair, store: LocalStore
) -> None:
    add_version(open_registry("none"), make_adapter, 0)
    add_version(open_registry("none"), make_adapter, 1)
    signer = open_registry(key=ours)
    event = attest_history(signer, TASK, reason="looked at it")
    assert event is not None
    assert (event.action, event.champion_before, event.champion_after) == ("attest", 2, 2)
    reader = open_registry()
    assert [each.action for each in reader.ledger.read_history(TASK)] == ["register", "register", "attest"]
    # The two below it can no longer be changed.
    path = event_path(store, 1)
    path.write_bytes(path.read_bytes().replace(b"better", b"bitter"))
    with pytest.raises(StoreError, match="the history was changed"):
        reader.ledger.read_history(TASK)
    path.write_bytes(path.read_bytes().replace(b"bitter", b"better"))
    open_registry("none").promote(TASK, 1, reason="without a key")
    with pytest.raises(StoreError, match="the newest event is not signed"):
        reader.resolve(TASK)


def test_a_new_key_attests_what_the_old_one_signed(
    writer: Registry, open_registry: OpenRegistry, ours: KeyPair, theirs: KeyPair
) -> None:
    renewed = open_registry(key=theirs, trusted=(theirs,))
    assert attest_history(renewed, TASK, reason="a new key") is not None
    assert open_registry(trusted=(theirs,)).resolve(TASK).version == 2
    assert len(open_registry(trusted=(theirs,)).ledger.read_history(TASK)) == 3
    with pytest.raises(StoreError, match="not by a trusted key"):
        open_registry(trusted=(ours,)).resolve(TASK)


def test_an_attestation_of_a_task_that_moves_meanwhile_is_a_conflict(
    writer: Registry,
    open_registry: OpenRegistry,
    theirs: KeyPair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = open_registry(key=theirs, trusted=(theirs,))
    from lorry_registry.ledger.ledger import Ledger

    state = Ledger(registry.store).require_state(TASK)
    writer.promote(TASK, 1, reason="meanwhile")
    monkeypatch.setattr(Ledger, "require_state", lambda *_: state)
    with pytest.raises((ConflictError, StoreError)):
        attest_history(registry, TASK, reason="a test")


def test_a_warning_about_a_ledger_is_given_once(
    open_registry: OpenRegistry, make_adapter: MakeAdapter, caplog: pytest.LogCaptureFixture
) -> None:
    add_version(open_registry("none"), make_adapter, 0)
    registry = open_registry("warn")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert registry.resolve(TASK).version == 1
            registry.ledger.read_history(TASK)
    assert len([record for record in caplog.records if "not signed" in record.getMessage()]) == 1


def test_nothing_is_recorded_without_a_key(
    open_registry: OpenRegistry, writer: Registry, store: LocalStore
) -> None:
    before = head_path(store).read_bytes()
    reader = open_registry()
    for move in (
        lambda: reader.promote(TASK, 1, reason="a test"),
        lambda: reader.rollback(TASK, reason="a test"),
        lambda: attest_history(reader, TASK, reason="a test"),
    ):
        with pytest.raises(UsageError, match="no key to sign with"):
            move()
    assert head_path(store).read_bytes() == before


# Replay: what was signed once is signed for ever.


def test_an_old_head_that_was_put_back_is_noticed_by_who_saw_the_newer(
    writer: Registry, open_registry: OpenRegistry, store: LocalStore
) -> None:
    reader = open_registry(seen="ours")
    reader.resolve(TASK)
    old = {path: path.read_bytes() for path in (store.root / "tasks").rglob("*.json")}
    writer.rollback(TASK, reason="v2 is dangerous")
    assert reader.resolve(TASK).version == 1
    shutil.rmtree(store.root / "tasks" / TASK)
    for path, content in old.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(StoreError, match=r"ends with event 2, .* has seen event 3: an older state"):
        reader.resolve(TASK)
    with pytest.raises(StoreError, match="an older state"):
        # It is kept on disk: another process of this machine notices as well.
        open_registry(seen="ours").resolve(TASK)
    # A machine that has never seen the newer one cannot know.
    assert open_registry(seen="another").resolve(TASK).version == 2
    shutil.rmtree(store.root / "tasks" / TASK)
    with pytest.raises(StoreError, match="it was removed"):
        reader.ledger.read_state(TASK)


def test_another_event_in_the_place_of_the_one_seen_is_noticed(
    writer: Registry, open_registry: OpenRegistry, store: LocalStore
) -> None:
    reader = open_registry(seen="ours")
    before = head_path(store).read_bytes()
    writer.rollback(TASK, reason="one way")
    reader.resolve(TASK)
    head_path(store).write_bytes(before)
    event_path(store, 3).unlink()
    writer.rollback(TASK, reason="the other way")
    with pytest.raises(StoreError, match="event 3 is another one"):
        reader.resolve(TASK)


def test_what_was_seen_is_not_lost_to_a_race(
    writer: Registry, open_registry: OpenRegistry, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = open_registry(seen="ours"), open_registry(seen="ours")
    slow.resolve(TASK)
    read, raced = LocalStore.read, []

    def read_slowly(self: LocalStore, key: str) -> Any:
        stored = read(self, key)
        if key.endswith("head.json") and not raced:
            raced.append(key)
            # While this answer is on its way, the head moves, and another process sees that.
            writer.rollback(TASK, reason="a test")
            quick.resolve(TASK)
        return stored

    monkeypatch.setattr(LocalStore, "read", read_slowly)
    assert slow.resolve(TASK).version == 2
    assert slow.resolve(TASK).version == 1


def test_a_damaged_memory_is_named(writer: Registry, open_registry: OpenRegistry, tmp_path: Path) -> None:
    open_registry(seen="ours").resolve(TASK)
    (kept,) = (tmp_path / "seen" / "ours").rglob("*.json")
    assert json.loads(kept.read_bytes())["sequence"] == 2
    kept.write_bytes(b"{}")
    with pytest.raises(StoreError, match="remove this file") as refusal:
        open_registry(seen="ours").resolve(TASK)
    assert refusal.value.where == str(kept)
