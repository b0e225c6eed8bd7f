"""Leases by themselves: who releases them, and how long they hold."""

import threading
import time
from datetime import timedelta

import pytest

from lorry_registry.errors import StoreError
from lorry_registry.leases import content_leases
from lorry_registry.leases.content_leases import LEASES, TOMBSTONES, Leases, Tombstone, is_lease_over
from lorry_registry.stores import LocalStore

NAME = "a" * 64


def _list(store: LocalStore) -> list[str]:
    return list(store.list_keys(LEASES))


def test_a_lease_is_there_during_its_block_and_no_longer(store: LocalStore) -> None:
    leases = Leases(store)
    with leases.hold(NAME), leases.hold_for_reading(NAME):
        assert [key.partition(".")[0] for key in _list(store)] == [f"{LEASES}/{NAME}"] * 2
    assert _list(store) == []
    with pytest.raises(ValueError, match="mine"), leases.hold(NAME):
        raise ValueError("mine")
    assert _list(store) == []


def test_a_kept_lease_is_taken_up_and_released_by_whoever_succeeds(store: LocalStore) -> None:
    leases = Leases(store)
    with leases.hold(NAME) as lease:
        leases.keep(NAME, lease)
    (key,) = _list(store)
    with pytest.raises(ValueError, match="again"), leases.hold(NAME):
        assert _list(store) == [key]
        raise ValueError("again")
    assert _list(store) == [key]
    with leases.hold(NAME):
        assert _list(store) == [key]
    assert _list(store) == []


def test_whoever_takes_up_a_lease_at_once_has_it(store: LocalStore) -> None:
    leases = Leases(store)
    with leases.hold(NAME) as lease:
        leases.keep(NAME, lease)
        taken = leases.hold(NAME)
        taken.__enter__()
    # The block that kept it has ended, and released nothing.
    assert len(_list(store)) == 1
    taken.__exit__(None, None, None)
    assert _list(store) == []


def test_a_kept_lease_that_is_not_fresh_any_more_is_replaced(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = Leases(store)
    with leases.hold(NAME) as lease:
        leases.keep(NAME, lease)
    (old,) = _list(store)
    monkeypatch.setattr(content_leases, "_RENEWAL_SECONDS", 0.0)
    with leases.hold(NAME):
        (new,) = _list(store)
        assert new != old


def test_a_lease_is_renewed_while_it_is_held(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_leases, "_RENEWAL_SECONDS", 0.05)
    with Leases(store).hold(NAME):
        first = next(store.list_entries(LEASES)).modified
        deadline = time.monotonic() + 10
        while next(store.list_entries(LEASES)).modified == first:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_lease_that_could_not_be_renewed_is_known_to_have_ended(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Leases(store).hold(NAME) as lease:
        lease.require_held()
        monkeypatch.setattr(content_leases, "LEASE_SECONDS", 0.0)
        with pytest.raises(StoreError, match="could not be renewed in time"):
            lease.require_held()


def test_a_lease_is_over_by_its_age(store: LocalStore) -> None:
    with Leases(store).hold(NAME):
        (entry,) = store.list_entries(LEASES)
        now = store.read_clock()
        assert not is_lease_over(store, entry, now + timedelta(minutes=14))
        assert is_lease_over(store, entry, now + timedelta(minutes=16))
    assert is_lease_over(store, entry, now)


def test_what_is_no_lease_of_this_version_holds_until_it_is_old(store: LocalStore) -> None:
    store.overwrite(f"{LEASES}/{NAME}.x", b"from the future")
    (entry,) = store.list_entries(LEASES)
    assert not is_lease_over(store, entry, store.read_clock())
    store.overwrite(f"{TOMBSTONES}/{NAME}", b"from the future")
    assert not Tombstone(store, NAME).try_raise(store.read_clock())


def test_who_comes_to_a_tombstone_waits_for_it(store: LocalStore) -> None:
    tombstone = Tombstone(store, NAME)
    assert tombstone.try_raise(store.read_clock())
    assert not Tombstone(store, NAME).try_raise(store.read_clock())
    order: list[str] = []

    def lower() -> None:
        order.append("lowered")
        tombstone.lower()

    timer = threading.Timer(0.5, lower)
    timer.start()
    with Leases(store).hold(NAME):
        order.append("held")
    timer.join()
    assert order == ["lowered", "held"]


def test_a_tombstone_is_in_nobodys_way_for_ever(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Tombstone(store, NAME).try_raise(store.read_clock())
    clock = store.read_clock
    monkeypatch.setattr(store, "read_clock", lambda: clock() + timedelta(minutes=16))
    with Leases(store).hold(NAME):
        pass
    second = Tombstone(store, NAME)
    assert second.try_raise(store.read_clock())
    second.lower()
    assert list(store.list_keys(TOMBSTONES)) == []


def test_a_tombstone_that_another_gc_has_replaced_is_left_to_it(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Tombstone(store, NAME), Tombstone(store, NAME)
    assert first.try_raise(store.read_clock())
    clock = store.read_clock
    monkeypatch.setattr(store, "read_clock", lambda: clock() + timedelta(minutes=16))
    assert second.try_raise(store.read_clock())
    first.lower()
    assert list(store.list_keys(TOMBSTONES)) == [f"{TOMBSTONES}/{NAME}"]
