"""Concurrent updates of the ledger: read a state, decide on it, swap the head, and again after a conflict.

The head is swapped only if it is unchanged (compare-and-swap). A writer that loses the race starts from the
new head: it decides again, and writes if the champion is still the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import JsonValue

from lorry_registry.errors import ConflictError
from lorry_registry.ledger.events import Action, Event
from lorry_registry.ledger.ledger import Ledger, NextState, TaskState, name_version
from lorry_registry.manifest import Manifest
from lorry_registry.retries import RetryPolicy

# One writer wins each time, so this many at once are served; the pauses make it far fewer attempts.
_RETRIES = RetryPolicy(attempts=200, first_seconds=0.01, longest_seconds=1.0, jitter=1.0)


@dataclass(frozen=True, slots=True)
class LedgerUpdate:
    """An event to be recorded, and the state that it leads to.

    Attributes:
        action: What happens.
        adapter_id: The adapter that it concerns.
        version: Its version; None means the next one.
        promote: Whether it becomes the champion.
        by: Who or what acts.
        reasons: Why, in sentences.
        details: What else the history keeps.
        manifest: The adapter's manifest, of which a champion's head keeps a copy.
        next_state: The task's state afterwards; None: as ``promote`` says.
    """

    action: Action
    adapter_id: str
    version: int | None
    promote: bool
    by: str
    reasons: tuple[str, ...]
    details: dict[str, JsonValue] | None = None
    manifest: Manifest | None = None
    next_state: NextState | None = None


def update(
    ledger: Ledger,
    task: str,
    decide: Callable[[TaskState], LedgerUpdate | Event],
    *,
    may_be_first: bool = False,
) -> Event:
    """Record what is decided on the present state of a task; decide again on the next one after a conflict.

    Args:
        ledger: The ledger.
        task: The task.
        decide: Returns what to record on a state, or an event that says it already. What it raises ends this.
        may_be_first: Whether this may be the first event of the task.

    Raises:
        ConflictError: Other writers came first, in every attempt.
        NotFoundError: There is no such task, and this is not its first event.
    """
    read = ledger.read_state if may_be_first else ledger.require_state
    try:
        return _RETRIES.call(
            lambda: _record_once(ledger, read(task), decide), lambda error: isinstance(error, _OvertakenError)
        )
    except _OvertakenError as overtaken:
        raise overtaken.conflict from None


class RequireSameChampion:
    """A check for every attempt of an update: the champion is still the one of the first attempt's state."""

    def __init__(self) -> None:
        self._first: TaskState | None = None

    def __call__(self, state: TaskState) -> None:
        """Raise unless the champion is still the version that it was when a person decided.

        Raises:
            ConflictError: It changed in between.
        """
        self._first = first = self._first or state
        if state.champion_version != first.champion_version:
            raise ConflictError(
                f"the champion changed meanwhile: it was {name_version(first.champion_version)}, "
                f"and is now {name_version(state.champion_version)}",
                where=state.task,
                todo=f"see: lorry history {state.task}; then decide again",
            )


class _OvertakenError(Exception):
    def __init__(self, conflict: ConflictError) -> None:
        self.conflict = conflict
        super().__init__(str(conflict))


def _record_once(
    ledger: Ledger, state: TaskState, decide: Callable[[TaskState], LedgerUpdate | Event]
) -> Event:
    decided = decide(state)
    if isinstance(decided, Event):
        return decided
    try:
        return ledger.append(
            state,
            action=decided.action,
            adapter_id=decided.adapter_id,
            version=decided.version,
            promote=decided.promote,
            by=decided.by,
            reasons=decided.reasons,
            details=decided.details,
            next_state=decided.next_state,
            manifest=decided.manifest,
        )
    except ConflictError as conflict:
        raise _OvertakenError(conflict) from conflict
