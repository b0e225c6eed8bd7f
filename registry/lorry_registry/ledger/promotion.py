"""Pure rules about versions: which was champion when, and where a rollback leads."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorry_registry.errors import NotFoundError
from lorry_registry.ledger.events import Event


@dataclass(frozen=True, slots=True)
class Version:
    """A numbered adapter of a task, and the event that registered it."""

    number: int
    adapter_id: str
    registered: Event


def list_versions(events: Sequence[Event]) -> list[Version]:
    """Return the versions that a history registered, the oldest first."""
    return [Version(event.version, event.adapter_id, event) for event in events if event.action == "register"]


def find_version(events: Sequence[Event], number: int, *, task: str) -> Version:
    """Return one version.

    Raises:
        NotFoundError: The task has no such version.
    """
    versions = list_versions(events)
    for version in versions:
        if version.number == number:
            return version
    raise NotFoundError(
        f"there is no version {number}",
        where=task,
        todo=f"versions 1 to {len(versions)} exist; see: lorry history {task}",
    )


def find_collection(events: Sequence[Event], number: int) -> Event | None:
    """Return the newest event that says that the files of a version were collected, or None."""
    collections = [event for event in events if event.action == "collect" and number in list_collected(event)]
    return collections[-1] if collections else None


def explain_collection(events: Sequence[Event], number: int, *, task: str) -> NotFoundError:
    """Return the error that says when the files of a version were removed, and what can be done now."""
    event = find_collection(events, number)
    when = f" on {event.at:%Y-%m-%d} by {event.by}" if event else ""
    return NotFoundError(
        f"its files were collected{when}: only its history is left",
        where=f"{task} v{number}",
        todo=f"choose another version: lorry history {task}; or train it again from the same data and recipe",
    )


def list_collected(event: Event) -> list[int]:
    """Return the versions whose files a ``collect`` event says were removed."""
    numbers = event.details.get("versions")
    return [number for number in numbers if type(number) is int] if isinstance(numbers, list) else []


def find_rollback_version(events: Sequence[Event], *, task: str) -> int:
    """Return the version that was champion before the present one, as if what was rolled back had never been.

    After v1, v2, v3 were promoted in turn, rollbacks lead to v2 and then to v1.

    Raises:
        NotFoundError: There is no earlier champion.
    """
    stack: list[int] = []
    for event in events:
        if event.action == "rollback" and event.champion_after is None:
            # The task was left without a champion.
            stack.clear()
        # A champion that a restoration brings back is where it was.
        if event.champion_after is None or not event.is_promotion or event.action == "restore":
            continue
        if event.action == "rollback":
            stack.pop()
        else:
            stack.append(event.champion_after)
    if len(stack) < 2:
        raise NotFoundError(
            "there is no earlier champion to go back to",
            where=task,
            todo=f"see: lorry history {task}"
            + (f"; to have no champion at all: lorry rollback {task} --to none" if stack else ""),
        )
    return stack[-2]


def explain_no_champion(events: Sequence[Event], *, task: str) -> NotFoundError:
    """Return the error that says why a task has no champion, and what can be done."""
    changes = [event for event in events if event.is_promotion]
    last = changes[-1] if changes else None
    what = "no version has passed the gate yet"
    if last is not None and last.action == "rollback":
        why = "; ".join(last.reasons)
        what = (
            f"there is no champion: v{last.champion_before} was withdrawn on {last.at:%Y-%m-%d} by {last.by}"
            + (f": {why}" if why else "")
        )
    return NotFoundError(
        what,
        where=task,
        todo=f"see: lorry history {task}; to use a version all the same: "
        f"lorry promote {task} VERSION --reason ...",
    )
