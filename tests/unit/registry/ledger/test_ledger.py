import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import ConflictError, NotFoundError, StoreError
from lorry_registry.files.digests import canonical_json, digest_bytes
from lorry_registry.ledger.events import Event
from lorry_registry.ledger.ledger import Ledger
from lorry_registry.stores import LocalStore


@pytest.fixture
def ledger(store: LocalStore) -> Ledger:
    return Ledger(store)


def _name(number: int) -> str:
    return digest_bytes(str(number).encode())


def _register(ledger: Ledger, number: int, *, promote: bool = True, task: str = "reviews") -> Event:
    return ledger.append(
        ledger.read_state(task),
        action="register",
        adapter_id=_name(number),
        version=None,
        promote=promote,
        by="a test",
        reasons=(f"reason {number}",),
        details={"run": number},
    )


def _find_event(store: LocalStore, sequence: int) -> Path:
    return store.root / "tasks" / "reviews" / "history" / f"{sequence:08d}.json"


def _find_head(store: LocalStore) -> Path:
    return store.root / "tasks" / "reviews" / "head.json"


def _edit(path: Path, **changes: Any) -> None:
    path.write_bytes(canonical_json(json.loads(path.read_bytes()) | changes))


def test_a_task_begins_without_anything(ledger: Ledger) -> None:
    state = ledger.read_state("reviews")
    assert (state.head, state.etag, state.champion, state.champion_version) == (None, None, None, None)
    assert ledger.list_tasks() == []


def test_versions_are_counted_and_the_champion_moves_only_when_promoted(ledger: Ledger) -> None:
    first, second, third = _register(ledger, 1), _register(ledger, 2, promote=False), _register(ledger, 3)
    assert [event.version for event in (first, second, third)] == [1, 2, 3]
    assert [event.is_promotion for event in (first, second, third)] == [True, False, True]
    state = ledger.require_state("reviews")
    assert state.champion is not None
    assert state.head is not None
    assert (state.champion.version, state.champion.adapter_id, state.head.versions) == (3, _name(3), 3)
    assert state.champion.promoted_at == third.at
    assert ledger.read_history("reviews") == [first, second, third]
    assert third.previous == second.digest
    assert third.details == {"run": 3}


def test_moving_to_an_old_version_does_not_count_a_new_one(ledger: Ledger) -> None:
    _register(ledger, 1)
    _register(ledger, 2)
    state = ledger.read_state("reviews")
    event = ledger.append(
        state, action="rollback", adapter_id=_name(1), version=1, promote=True, by="me", reasons=("worse",)
    )
    assert (event.champion_before, event.champion_after) == (2, 1)
    head = ledger.require_state("reviews").head
    assert head is not None
    assert head.versions == 2
    assert _register(ledger, 3).version == 3


def test_tasks_are_listed_and_what_lies_beside_them_is_not(ledger: Ledger, store: LocalStore) -> None:
    _register(ledger, 1)
    _register(ledger, 1, task="films")
    for stray in ("read me (copy).txt", "UPPER", "empty-task"):
        (store.root / "tasks" / stray).mkdir()
    (store.root / "tasks" / "notes").touch()
    assert ledger.list_tasks() == ["films", "reviews"]


@pytest.mark.parametrize("task", ["nothing", "../x", "a\n", "", "A", "a/b"])
def test_a_task_that_is_not_there_is_not_found(ledger: Ledger, task: str) -> None:
    with pytest.raises(NotFoundError, match="there is no task"):
        ledger.require_state(task)


def test_two_writers_from_one_state_cannot_both_win(ledger: Ledger) -> None:
    _register(ledger, 1)
    state = ledger.read_state("reviews")
    arguments: dict[str, Any] = {
        "action": "register",
        "version": None,
        "promote": True,
        "by": "x",
        "reasons": (),
    }
    ledger.append(state, adapter_id=_name(2), **arguments)
    with pytest.raises(ConflictError, match="changed by another writer"):
        ledger.append(state, adapter_id=_name(3), **arguments)
    assert [event.adapter_id for event in ledger.read_history("reviews")] == [_name(1), _name(2)]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StoreError("the disk is full")])
def test_a_crash_between_the_swap_and_the_filing_loses_nothing(
    ledger: Ledger, store: LocalStore, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    _register(ledger, 1)
    original, failures = store.create, [error]

    def create(key: str, content: bytes) -> None:
        if key.endswith("00000002.json") and failures:
            raise failures.pop()
        original(key, content)

    monkeypatch.setattr(store, "create", create)
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            _register(ledger, 2)
    else:
        # The move is done: it is not reported as failed.
        assert _register(ledger, 2).version == 2
    assert not _find_event(store, 2).exists()
    assert [event.version for event in ledger.read_history("reviews")] == [1, 2]
    _register(ledger, 3)
    assert _find_event(store, 2).exists()
    assert [event.version for event in ledger.read_history("reviews")] == [1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        {"reasons": ["another reason"]},
        {"champion_after": None},
        {"by": "somebody else"},
        {"previous": None},
        {"adapter_id": _name(9)},
    ],
)
def test_a_changed_event_is_noticed(ledger: Ledger, store: LocalStore, change: dict[str, Any]) -> None:
    for number in (1, 2, 3):
        _register(ledger, number)
    _edit(_find_event(store, 2), **change)
    with pytest.raises(StoreError, match="the history was changed") as caught:
        ledger.read_history("reviews")
    assert "restore the history" in str(caught.value)


def test_a_missing_event_is_noticed(ledger: Ledger, store: LocalStore) -> None:
    for number in (1, 2, 3):
        _register(ledger, number)
    _find_event(store, 2).unlink()
    with pytest.raises(StoreError, match="event 2 of the history is missing"):
        ledger.read_history("reviews")


def test_events_that_changed_places_are_noticed(ledger: Ledger, store: LocalStore) -> None:
    for number in (1, 2, 3, 4):
        _register(ledger, number)
    one, two = _find_event(store, 2).read_bytes(), _find_event(store, 3).read_bytes()
    _find_event(store, 2).write_bytes(two)
    _find_event(store, 3).write_bytes(one)
    with pytest.raises(StoreError, match="the history was changed"):
        ledger.read_history("reviews")


@pytest.mark.parametrize(
    "field", [{"version": 1}, {"adapter_id": _name(1)}, {"version": 1, "adapter_id": _name(1)}]
)
def test_a_head_that_names_another_champion_than_the_history_is_noticed(
    ledger: Ledger, store: LocalStore, field: dict[str, Any]
) -> None:
    _register(ledger, 1)
    _register(ledger, 2)
    champion = json.loads(_find_head(store).read_bytes())["champion"]
    _edit(_find_head(store), champion=champion | field)
    with pytest.raises(StoreError, match="names a different champion from the history"):
        ledger.read_history("reviews")


def test_a_head_without_its_champion_is_noticed(ledger: Ledger, store: LocalStore) -> None:
    _register(ledger, 1)
    _edit(_find_head(store), champion=None)
    with pytest.raises(StoreError, match="names a different champion"):
        ledger.read_history("reviews")


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"\xff", b'{"task":"reviews"}'])
def test_a_head_that_is_no_head_is_one_clear_error(ledger: Ledger, store: LocalStore, content: bytes) -> None:
    _register(ledger, 1)
    _find_head(store).write_bytes(content)
    with pytest.raises(StoreError, match="not a ledger document that this version of lorry can read"):
        ledger.read_state("reviews")


# A ledger under another name


@pytest.mark.parametrize("count", [1, 3])
def test_a_ledger_that_was_copied_to_another_name_is_refused(
    ledger: Ledger, store: LocalStore, count: int
) -> None:
    for number in range(1, count + 1):
        _register(ledger, number)
    shutil.copytree(store.root / "tasks" / "reviews", store.root / "tasks" / "fraud")
    for read in (ledger.read_state, ledger.require_state, ledger.read_history):
        with pytest.raises(StoreError, match="the ledger of the task 'reviews'"):
            read("fraud")
    assert len(ledger.read_history("reviews")) == count


def test_a_copied_ledger_whose_head_was_edited_is_refused_by_its_events(
    ledger: Ledger, store: LocalStore
) -> None:
    for number in (1, 2):
        _register(ledger, number)
    copy = store.root / "tasks" / "fraud"
    shutil.copytree(store.root / "tasks" / "reviews", copy)
    _edit(copy / "head.json", task="fraud")
    with pytest.raises(StoreError, match="the ledger of the task 'reviews'"):
        ledger.read_state("fraud")
    event = json.loads((copy / "head.json").read_bytes())["event"]
    _edit(copy / "head.json", event=event | {"task": "fraud"})
    with pytest.raises(StoreError, match="the ledger of the task 'reviews'"):
        ledger.read_history("fraud")
