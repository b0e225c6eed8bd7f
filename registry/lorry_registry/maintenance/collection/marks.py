"""Pure rules: which versions of a task stay, and why."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lorry_registry.errors import NotFoundError
from lorry_registry.ledger.events import Event
from lorry_registry.ledger.ledger import TaskState
from lorry_registry.ledger.promotion import Version, find_rollback_version, list_versions
from lorry_registry.maintenance.collection.collection_findings import Rules


@dataclass(frozen=True, slots=True)
class TaskMarks:
    """What a ledger says about the versions of a task.

    Attributes:
        versions: All of them, the oldest first.
        kept: The number of each version that stays -> why.
        reason: Why the others can go.
    """

    versions: tuple[Version, ...]
    kept: Mapping[int, str]
    reason: str


def mark_task(state: TaskState, events: Sequence[Event], rules: Rules, now: datetime) -> TaskMarks:
    """Return which versions of a task stay: a version is kept for the first reason that it has.

    A task that was deleted within the grace period keeps what it would keep otherwise.

    Args:
        state: The state of a task that has a head.
        events: Its history.
        rules: What stays.
        now: The time.
    """
    versions = tuple(list_versions(events))
    deleted = state.deleted
    if deleted is not None and now - deleted.at > rules.grace:
        return TaskMarks(versions, {}, f"the task was deleted on {deleted.at:%Y-%m-%d} by {deleted.by}")
    champion = state.champion or (deleted.champion if deleted else None)
    kept: dict[int, str] = {}
    if champion is not None:
        kept[champion.version] = "the champion" if deleted is None else "restoring the task brings it back"
    # There may be nothing to roll back to.
    with contextlib.suppress(NotFoundError):
        kept.setdefault(find_rollback_version(events, task=state.task), "a rollback would lead to it")
    newest = versions[max(0, len(versions) - rules.keep_last) :]
    for version in newest:
        kept.setdefault(version.number, f"one of the last {rules.keep_last} versions")
    for number, named in _find_last_named(events).items():
        if now - named <= rules.grace:
            kept.setdefault(number, "in use within the grace period")
    return TaskMarks(versions, kept, f"older than the last {rules.keep_last} versions")


def _find_last_named(events: Sequence[Event]) -> dict[int, datetime]:
    """Return when each version was last registered, made the champion, or ceased to be it."""
    named: dict[int, datetime] = {}
    for event in events:
        if event.action == "collect":
            continue
        for number in (event.version, event.champion_before if event.is_promotion else None):
            if number is not None:
                named[number] = event.at
    return named
