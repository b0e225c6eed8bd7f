"""Writing to the ledger while others do: a decision holds for as long as the champion does that it is about.

The ledger's head is swapped under the condition that nobody moved it. Whoever comes second starts from the
new head: what was decided is decided again, and written if the champion is still the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import JsonValue

from lorry_registry.errors import ConflictError
from lorry_registry.ledger.events import Action, Event
from lorry_registry.ledger.ledger import Ledger, Standing, TaskState, name_version
from lorry_registry.manifest import Manifest
from lorry_registry.retries import RetryPolicy

# One writer wins each time, so this many at once are served; the pauses make it far fewer attempts.
_RETRIES = RetryPolicy(attempts=200, first_seconds=0.01, longest_seconds=1.0, jitter=1.0)


@dataclass(frozen=True, slots=True)
class Move:
    """What is to be recorded.

    Attributes:
        action: What happens.
        adapter_id: The adapter that it concerns.
        version: Its version; None means the next one.
        promote: Whether it becomes the champion.
        by: Who or what acts.
        reasons: Why, in sentences.
        details: Whatever else the history keeps.
        manifest: The adapter's manifest, of which a champion's head keeps a copy.
        standing: How the task stands afterwards; None: as ``promote`` says.
    """

    action: Action
    adapter_id: str
    version: int | None
    promote: bool
    by: str
    reasons: tuple[str, ...]
    details: dict[str, JsonValue] | None = None
    manifest: Manifest | None = None
    standing: Standing | None = None


def record_move(ledger: Ledger, task: str, decide: Callable[[TaskState], Move | Event]) -> Event:
    """Record what is decided on the present state of a task; on the next one when somebody comes first.

    Args:
        ledger: The ledger.
        task: The task.
        decide: Returns what to record on a state, or an event that says it already. What it raises ends this.

    Raises:
        ConflictError: Others came first again and again.
    """
    try:
        return _RETRIES.call(
            lambda: _record_once(ledger, task, decide), lambda error: isinstance(error, _OvertakenError)
        )
    except _OvertakenError as overtaken:
        raise overtaken.conflict from None


def require_same_champion(state: TaskState, champion: int | None) -> None:
    """Raise unless the champion is still the version that it was when a person decided.

    Raises:
        ConflictError: Somebody moved it in between.
    """
    if state.champion_version != champion:
        raise ConflictError(
            f"the champion changed meanwhile: it was {name_version(champion)}, "
            f"and is now {name_version(state.champion_version)}",
            where=state.task,
            todo=f"see: lorry history {state.task}; then decide again",
        )


class _OvertakenError(Exception):
    def __init__(self, conflict: ConflictError) -> None:
        self.conflict = conflict
        super().__init__(str(conflict))


def _record_once(ledger: Ledger, task: str, decide: Callable[[TaskState], Move | Event]) -> Event:
    state = ledger.read_state(task)
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
            standing=decided.standing,
            manifest=decided.manifest,
        )
    except ConflictError as conflict:
        raise _OvertakenError(conflict) from conflict
