"""The status of a version in the ledger: the gate's decision, and the later changes of champion.

Pure rules over a task's history. Every page takes its words from here, so that none calls a version promoted
that was rolled back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lorry_registry.ledger.events import Event
from lorry_registry.ledger.promotion import list_versions

Decision = Literal["promoted", "refused", "rolled back"]
Role = Literal["champion", "challenger", "former champion", "refused"]


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """The status of one version.

    Attributes:
        version: Its number.
        adapter_id: Its adapter.
        role: ``champion``; ``challenger`` for the newest version if it is not the champion; ``former
            champion``; ``refused`` if it never was the champion.
        decision: The last word on it: ``promoted`` by the gate or by hand, ``refused``, or ``rolled back``.
        passed: Whether the gate let it pass when it was registered.
        reasons: The gate's reasons at that time, or when it refused the version again.
        beaten: The version whose place it took when it was registered.
        changes: The later events that made it the champion, or put another version in its place.
    """

    version: int
    adapter_id: str
    role: Role
    decision: Decision
    passed: bool
    reasons: tuple[str, ...]
    beaten: int | None = None
    changes: tuple[Event, ...] = ()


def judge_registration(
    version: int, adapter_id: str, *, promoted: bool, reasons: Sequence[str], beaten: int | None = None
) -> VersionStatus:
    """Return the status of a version at its registration."""
    return VersionStatus(
        version=version,
        adapter_id=adapter_id,
        role="champion" if promoted else "challenger",
        decision="promoted" if promoted else "refused",
        passed=promoted,
        reasons=tuple(reasons),
        beaten=beaten if promoted else None,
    )


def find_statuses(events: Sequence[Event]) -> dict[int, VersionStatus]:
    """Return the status of each version of a task after these events, by its number."""
    versions = list_versions(events)
    champion = events[-1].champion_after if events else None
    newest = versions[-1].number if versions else None
    statuses = {}
    for version in versions:
        number, registered = version.number, version.registered
        changes = tuple(
            event
            for event in events
            if event.is_promotion
            and event.sequence != registered.sequence
            and number in (event.champion_before, event.champion_after)
        )
        judged = [event for event in events if event.action == "judge" and event.version == number]
        has_reigned = registered.champion_after == number or any(
            event.champion_after == number for event in changes
        )
        statuses[number] = VersionStatus(
            version=number,
            adapter_id=version.adapter_id,
            role=_name_role(number, champion, newest, has_reigned=has_reigned),
            decision=_name_decision(number, changes, has_reigned=has_reigned),
            passed=registered.is_promotion,
            reasons=judged[-1].reasons if judged else registered.reasons,
            beaten=registered.champion_before if registered.is_promotion else None,
            changes=changes,
        )
    return statuses


def name_version_status(status: VersionStatus) -> str:
    """Return the one word that a person wants: whether a version is in use, and if not, why not."""
    if status.role == "champion":
        return "champion"
    return status.decision if status.decision != "promoted" else "former champion"


def describe_promotion(status: VersionStatus) -> str:
    """Return how a champion came to its place, if not by the gate; "" otherwise."""
    made = next((event for event in reversed(status.changes) if event.champion_after == status.version), None)
    if status.role != "champion" or made is None:
        return ""
    return {"promote": "promoted by hand", "rollback": "back by a rollback"}.get(made.action, "")


def explain_status(status: VersionStatus) -> str:
    """Return a heading for the events that led to a version's status."""
    name = name_version_status(status)
    if name == "champion":
        return "Why it is the champion"
    return "Why it was rolled back" if name == "rolled back" else f"Why it is a {name}"


def describe_change(event: Event, number: int) -> str:
    """Return what an event did to a version, when, by whom and why, in one sentence without a full stop."""
    if event.action in ("delete", "restore"):
        verb, other = f"the task was {event.action}d", ""
    elif event.champion_after == number:
        verb = "back as the champion" if event.action == "rollback" else "promoted"
        other = f" in place of v{event.champion_before}" if event.champion_before else ""
    else:
        successor = f"v{event.champion_after}" if event.champion_after else "no version"
        verb = "rolled back" if event.action == "rollback" else "followed"
        other = f" to {successor}" if event.action == "rollback" else f" by {successor} as the champion"
    when = event.at.strftime("%Y-%m-%d %H:%M UTC")
    # The gate's reasons for another version are on that version's own page.
    is_theirs = event.action == "register" and event.version != number
    why = f": {'; '.join(event.reasons)}" if event.reasons and not is_theirs else ""
    return f"{when}, {event.by}: {verb}{other}{why}"


def _name_role(number: int, champion: int | None, newest: int | None, *, has_reigned: bool) -> Role:
    if number == champion:
        return "champion"
    if number == newest:
        return "challenger"
    return "former champion" if has_reigned else "refused"


def _name_decision(number: int, changes: Sequence[Event], *, has_reigned: bool) -> Decision:
    last = changes[-1] if changes else None
    if last is not None and last.action == "rollback" and last.champion_before == number:
        return "rolled back"
    return "promoted" if has_reigned else "refused"
