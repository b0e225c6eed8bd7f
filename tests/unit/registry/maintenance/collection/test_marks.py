"""Which versions stay, by the pure rules."""

import contextlib
from datetime import UTC, datetime, timedelta

from hypothesis import assume, given
from hypothesis import strategies as st

from lorry_registry.errors import NotFoundError
from lorry_registry.files.digests import digest_bytes
from lorry_registry.ledger.events import Action, Champion, Deletion, Event, Head
from lorry_registry.ledger.ledger import TaskState
from lorry_registry.ledger.promotion import find_rollback_version
from lorry_registry.maintenance.collection import Rules
from lorry_registry.maintenance.collection.marks import mark_task

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


class History:
    """A history of one event a day."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.champion: int | None = None
        self.deleted: Deletion | None = None

    def add(self, action: Action, version: int, champion: int | None) -> None:
        self.events.append(
            Event(
                sequence=len(self.events) + 1,
                at=START + len(self.events) * DAY,
                by="a test",
                action=action,
                version=version,
                adapter_id=digest_bytes(str(version).encode()),
                champion_before=self.champion,
                champion_after=champion,
                reasons=(),
                previous=None,
                task="reviews",
                registry="0" * 32,
            )
        )
        self.champion = champion

    def register(self, *, promote: bool) -> None:
        number = 1 + sum(event.action == "register" for event in self.events)
        self.add("register", number, number if promote else self.champion)

    def delete(self) -> None:
        champion, last = self._name(self.champion), self.champion
        self.add("delete", last or 1, None)
        self.deleted = Deletion(at=self.events[-1].at, by="a test", reasons=(), champion=champion)

    @property
    def state(self) -> TaskState:
        champion = self._name(self.champion)
        head = Head(
            task="reviews",
            versions=9,
            champion=champion,
            event=self.events[-1],
            deleted=self.deleted,
            registry="0" * 32,
        )
        return TaskState("t", head, "tag")

    @property
    def end(self) -> datetime:
        return self.events[-1].at

    def _name(self, number: int | None) -> Champion | None:
        if number is None:
            return None
        adapter_id = digest_bytes(str(number).encode())
        return Champion(version=number, adapter_id=adapter_id, promoted_at=START)


def _make_history(*promotions: bool) -> History:
    history = History()
    for promote in promotions:
        history.register(promote=promote)
    return history


def test_a_version_stays_for_a_while_after_it_was_the_champion() -> None:
    history = _make_history(True, True, True, True)
    # v2 ceased to be the champion on the third day, v1 on the second.
    marks = mark_task(history.state, history.events, Rules(1, 2 * DAY), START + 4 * DAY)
    assert marks.kept == {
        4: "the champion",
        3: "a rollback would lead to it",
        2: "in use within the grace period",
    }
    marks = mark_task(history.state, history.events, Rules(1, 2 * DAY), START + 5 * DAY)
    assert sorted(marks.kept) == [3, 4]
    assert marks.reason == "older than the last 1 versions"


def test_a_deleted_task_keeps_what_it_kept_until_the_grace_period_is_over() -> None:
    history = _make_history(True, True, False)
    history.delete()
    rules = Rules(1, 7 * DAY)
    assert mark_task(history.state, history.events, rules, history.end + 7 * DAY).kept == {
        2: "restoring the task brings it back",
        1: "a rollback would lead to it",
        3: "one of the last 1 versions",
    }
    marks = mark_task(history.state, history.events, rules, history.end + 8 * DAY)
    assert marks.kept == {}
    assert marks.reason == "the task was deleted on 2026-01-04 by a test"


def test_a_collection_and_a_restoration_are_no_use() -> None:
    history = _make_history(True, True)
    history.delete()
    history.deleted = None
    history.add("restore", 2, 2)
    assert find_rollback_version(history.events, task="t") == 1
    history.add("collect", 1, 2)
    marks = mark_task(history.state, history.events, Rules(1, DAY), history.end + DAY)
    assert sorted(marks.kept) == [1, 2]
    assert "within the grace" not in marks.kept[1]


@given(
    st.lists(st.sampled_from(["refused", "promoted", "rollback"]), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(0, 30),
)
def test_champion_rollback_and_newest_always_stay(actions: list[str], keep_last: int, days: int) -> None:
    history = History()
    for action in actions:
        if action == "rollback":
            try:
                number = find_rollback_version(history.events, task="t")
            except NotFoundError:
                continue
            history.add("rollback", number, number)
        else:
            history.register(promote=action == "promoted")
    assume(history.events)
    marks = mark_task(history.state, history.events, Rules(keep_last, timedelta()), history.end + days * DAY)
    numbers = [version.number for version in marks.versions]
    needed = set(numbers[-keep_last:]) | ({history.champion} if history.champion else set())
    with contextlib.suppress(NotFoundError):
        needed.add(find_rollback_version(history.events, task="t"))
    assert needed <= set(marks.kept)
    if days > 0:
        assert needed == set(marks.kept)
