"""How a version stands in the ledger: what the gate said of it, and what was done with it afterwards.

Pure rules over a task's history; whatever shows a version takes its words from here, so that no page calls a
version promoted that was rolled back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lorry_registry.ledger.events import Event
from lorry_registry.ledger.promotion import list_versions

Decision = Literal["promoted", "refused", "rolled back"]
Status = Literal["champion", "challenger", "former champion", "refused"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How one version stands.

    Attributes:
        version: Its number.
        adapter_id: Its adapter.
        status: ``champion``; ``challenger`` for the newest version if it is not the champion; ``former
            champion``; ``refused`` if it never was the champion.
        decision: The last word on it: ``promoted`` by the gate or by hand, ``refused``, or ``rolled back``.
        passed: Whether the gate let it pass when it was registered.
        reasons: The gate's reasons at that time, or when it refused the version again.
        beaten: The version whose place it took when it was registered.
        moves: The later events that made it the champion, or put another version in its place.
    """

    version: int
    adapter_id: str
    status: Status
    decision: Decision
    passed: bool
    reasons: tuple[str, ...]
    beaten: int | None = None
    moves: tuple[Event, ...] = ()


def judge_registration(
    version: int, adapter_id: str, *, promoted: bool, reasons: Sequence[str], beaten: int | None = None
) -> Standing:
    """Return how a version stands at the moment of its registration."""
    return Standing(
        version=version,
        adapter_id=adapter_id,
        status="champion" if promoted else "challenger",
        decision="promoted" if promoted else "refused",
        passed=promoted,
        reasons=tuple(reasons),
        beaten=beaten if promoted else None,
    )


def judge_standings(events: Sequence[Event]) -> dict[int, Standing]:
    """Return how each version of a task stands after these events, by its number."""
    versions = list_versions(events)
    champion = events[-1].champion_after if events else None
    newest = versions[-1].number if versions else None
    standings = {}
    for version in versions:
        number, registered = version.number, version.registered
        moves = tuple(
            event
            for event in events
            if event.is_promotion
            and event.sequence != registered.sequence
            and number in (event.champion_before, event.champion_after)
        )
        judged = [event for event in events if event.action == "judge" and event.version == number]
        has_reigned = registered.champion_after == number or any(
            event.champion_after == number for event in moves
        )
        standings[number] = Standing(
            version=number,
            adapter_id=version.adapter_id,
            status=_name_status(number, champion, newest, has_reigned=has_reigned),
            decision=_name_decision(number, moves, has_reigned=has_reigned),
            passed=registered.is_promotion,
            reasons=judged[-1].reasons if judged else registered.reasons,
            beaten=registered.champion_before if registered.is_promotion else None,
            moves=moves,
        )
    return standings


def name_standing(standing: Standing) -> str:
    """Return the one word that a person wants: whether a version is in use, and if not, why not."""
    if standing.status == "champion":
        return "champion"
    return standing.decision if standing.decision != "promoted" else "former champion"


def describe_promotion(standing: Standing) -> str:
    """Return how a champion came to its place, if not by the gate; "" otherwise."""
    made = next(
        (event for event in reversed(standing.moves) if event.champion_after == standing.version), None
    )
    if standing.status != "champion" or made is None:
        return ""
    return {"promote": "promoted by hand", "rollback": "back by a rollback"}.get(made.action, "")


def explain_standing(standing: Standing) -> str:
    """Return a heading for the events that made a version stand as it does."""
    name = name_standing(standing)
    if name == "champion":
        return "Why it is the champion"
    return "Why it was rolled back" if name == "rolled back" else f"Why it is a {name}"


def describe_move(event: Event, number: int) -> str:
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


def _name_status(number: int, champion: int | None, newest: int | None, *, has_reigned: bool) -> Status:
    if number == champion:
        return "champion"
    if number == newest:
        return "challenger"
    return "former champion" if has_reigned else "refused"


def _name_decision(number: int, moves: Sequence[Event], *, has_reigned: bool) -> Decision:
    last = moves[-1] if moves else None
    if last is not None and last.action == "rollback" and last.champion_before == number:
        return "rolled back"
    return "promoted" if has_reigned else "refused"
