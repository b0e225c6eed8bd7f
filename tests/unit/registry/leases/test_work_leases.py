"""Leases on work: one of several does it, in a folder and on S3; what a killed one left is found."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from lorry_registry.errors import ConflictError, StoreError
from lorry_registry.leases import work_leases
from lorry_registry.leases.process_names import ProcessName
from lorry_registry.leases.work_leases import (
    WORK_SECONDS,
    WorkLease,
    WorkState,
    check_fence,
    is_unfinished,
    keep_leases,
    take_lease,
)
from lorry_registry.stores import LocalStore, Store

TASK = "reviews"


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def shared(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue("store" if request.param == "folder" else "s3_store")
    return found


def take(store: Store) -> WorkLease:
    lease = take_lease(store, TASK)
    assert isinstance(lease, WorkLease)
    return lease


def leave(store: Store, *, until: timedelta, process: ProcessName) -> None:
    """Leave the lease of a process that does not give it back."""
    lease = take(store)
    now = store.read_clock()
    state = WorkState(token=lease.token, process=process, since=now, until=now + until)
    store.replace(f"work/{TASK}.json", state.model_dump_json().encode())


ELSEWHERE = ProcessName(host="elsewhere", number=7)


def test_one_holds_it_and_gives_it_back(shared: Store) -> None:
    assert not is_unfinished(shared, TASK)
    lease = take(shared)
    other = take_lease(shared, TASK)
    assert isinstance(other, WorkState)
    assert f"process {ProcessName.of_this_process().number} on " in other.describe_holder()
    # One of another task is another.
    assert isinstance(take_lease(shared, "films"), WorkLease)
    lease.release()
    assert not is_unfinished(shared, TASK)
    again = take(shared)
    assert (again.token, again.follows_unfinished) == (lease.token + 1, False)


def test_of_many_at_once_one_gets_it(shared: Store) -> None:
    with ThreadPoolExecutor(8) as executor:
        found = list(executor.map(lambda _: take_lease(shared, TASK), range(16)))
    assert len([lease for lease in found if isinstance(lease, WorkLease)]) == 1


def test_one_that_was_not_renewed_is_taken_over(shared: Store) -> None:
    leave(shared, until=timedelta(seconds=60), process=ELSEWHERE)
    assert isinstance(take_lease(shared, TASK), WorkState)
    assert not is_unfinished(shared, TASK)
    leave_again = shared.read(f"work/{TASK}.json")
    assert leave_again is not None
    state = WorkState.model_validate_json(leave_again.content)
    ended = state.model_copy(update={"until": shared.read_clock() - timedelta(seconds=5)})
    shared.replace(f"work/{TASK}.json", ended.model_dump_json().encode())
    assert is_unfinished(shared, TASK)
    lease = take(shared)
    assert (lease.token, lease.follows_unfinished) == (state.token + 1, True)


def test_that_of_a_process_that_ended_here_is_free_at_once(store: LocalStore) -> None:
    script = (
        "import sys; from lorry_registry.stores import open_store; "
        "from lorry_registry.leases.work_leases import take_lease; "
        "take_lease(open_store(sys.argv[1]), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", script, str(store.root), TASK], check=True)
    assert is_unfinished(store, TASK)
    assert take(store).follows_unfinished


def test_who_was_too_slow_can_neither_renew_nor_give_back_nor_register(shared: Store) -> None:
    slow = take(shared)
    slow.fence("run-1")
    check_fence(shared, "run-1", TASK)
    # A run without a lease, and another task, have no fence.
    check_fence(shared, "by-hand", TASK)
    check_fence(shared, "run-1", "films")
    now = shared.read_clock()
    state = WorkState(token=slow.token, process=ELSEWHERE, since=now, until=now - timedelta(seconds=5))
    shared.replace(f"work/{TASK}.json", state.model_dump_json().encode())
    # Nobody has taken over: nothing is lost by letting it register.
    check_fence(shared, "run-1", TASK)
    quick = take(shared)
    quick.fence("run-2")
    with pytest.raises(ConflictError):
        slow.renew()
    slow.release()
    assert isinstance(take_lease(shared, TASK), WorkState)
    with pytest.raises(ConflictError, match="lease expired; now held by") as caught:
        check_fence(shared, "run-1", TASK)
    assert caught.value.where == TASK
    check_fence(shared, "run-2", TASK)
    quick.renew()


def test_they_are_renewed_as_long_as_work_goes_on_and_given_back_at_the_end(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_leases, "_RENEWAL_SECONDS", 0.02)
    lease = take(store)

    def read() -> WorkState:
        stored = store.read(f"work/{TASK}.json")
        assert stored is not None
        return WorkState.model_validate_json(stored.content)

    first = read().until
    with pytest.raises(RuntimeError), keep_leases([lease]):
        deadline = time.monotonic() + 30
        while read().until <= first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert read().until - read().since >= timedelta(seconds=WORK_SECONDS)
        raise RuntimeError
    assert read().process is None
    # Nobody knows how far it came.
    assert is_unfinished(store, TASK)
    again = take(store)
    assert again.follows_unfinished
    with keep_leases([again]):
        pass
    assert not is_unfinished(store, TASK)
    assert not take(store).follows_unfinished


def test_one_of_a_later_lorry_is_not_taken(store: LocalStore) -> None:
    store.create(f"work/{TASK}.json", b"[]")
    with pytest.raises(StoreError, match="no lease"):
        take_lease(store, TASK)
