import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorry_registry.errors import NotFoundError
from lorry_registry.files.digests import digest_bytes
from lorry_registry.ledger.events import Event
from lorry_registry.ledger.ledger import Ledger, NextState
from lorry_registry.ledger.promotion import find_rollback_version, find_version, list_versions

from fixtures.memory_store import MemoryStore


class Task:
    """A task in memory, moved as the registry moves it."""

    def __init__(self) -> None:
        self.ledger = Ledger(MemoryStore())

    def read_events(self) -> list[Event]:
        return self.ledger.read_history("t") if self.ledger.list_tasks() else []

    def register(self, *, promote: bool) -> None:
        state = self.ledger.read_state("t")
        number = (state.head.versions if state.head else 0) + 1
        self._append("register", number, None, promote=promote)

    def move(self, action: str, version: int) -> None:
        self._append(action, version, version, promote=True)

    def withdraw(self, version: int) -> None:
        self._append("rollback", version, version, next_state=NextState(None, None))

    def _append(
        self,
        action: str,
        number: int,
        version: int | None,
        *,
        promote: bool = False,
        next_state: NextState | None = None,
    ) -> None:
        self.ledger.append(
            self.ledger.read_state("t"),
            action=action,  # type: ignore[arg-type]
            adapter_id=digest_bytes(str(number).encode()),
            version=version,
            promote=promote,
            by="x",
            reasons=(),
            next_state=next_state,
        )

    @property
    def champion(self) -> int | None:
        return self.ledger.read_state("t").champion_version


def test_a_task_that_was_left_without_a_champion_begins_anew() -> None:
    task = Task()
    for _ in range(2):
        task.register(promote=True)
    task.withdraw(2)
    with pytest.raises(NotFoundError, match=r"history t$"):
        find_rollback_version(task.read_events(), task="t")
    task.move("promote", 2)
    with pytest.raises(NotFoundError, match="lorry rollback t --to none"):
        find_rollback_version(task.read_events(), task="t")
    task.move("promote", 1)
    assert find_rollback_version(task.read_events(), task="t") == 2


def test_a_version_is_found_by_its_number() -> None:
    task = Task()
    task.register(promote=False)
    task.register(promote=True)
    task.move("promote", 1)
    events = task.read_events()
    assert [version.number for version in list_versions(events)] == [1, 2]
    assert find_version(events, 2, task="t").adapter_id == digest_bytes(b"2")
    with pytest.raises(NotFoundError, match=r"there is no version 3\n  -> versions 1 to 2 exist"):
        find_version(events, 3, task="t")


_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("register"), st.booleans()),
        st.tuples(st.just("promote"), st.integers(1, 8)),
        st.tuples(st.just("rollback"), st.none()),
    ),
    max_size=25,
)


@given(_ACTIONS)
def test_any_sequence_of_moves_follows_a_stack_of_champions(
    actions: list[tuple[str, bool | int | None]],
) -> None:
    task, stack, versions = Task(), list[int](), 0
    for action, argument in actions:
        if action == "register":
            task.register(promote=bool(argument))
            versions += 1
            if argument:
                stack.append(versions)
        elif action == "promote" and isinstance(argument, int) and argument <= versions:
            if stack[-1:] != [argument]:
                task.move("promote", argument)
                stack.append(argument)
        elif action == "rollback":
            if len(stack) < 2:
                with pytest.raises(NotFoundError):
                    find_rollback_version(task.read_events(), task="t")
            else:
                task.move("rollback", find_rollback_version(task.read_events(), task="t"))
                stack.pop()
        assert task.champion == (stack[-1] if stack else None)
    events = task.read_events()
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [version.number for version in list_versions(events)] == list(range(1, versions + 1))
