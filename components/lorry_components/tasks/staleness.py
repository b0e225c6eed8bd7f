"""A search for an adapter trained from the same data, on the same base, by the same recipe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from lorry_components.tasks.changes import describe_changes
from lorry_components.tasks.resolution import ResolvedTask
from lorry_registry.errors import AdapterRejectedError
from lorry_registry.ledger.alpha_spending import find_judge
from lorry_registry.ledger.events import Event
from lorry_registry.ledger.ledger import name_version, require_present
from lorry_registry.ledger.promotion import Version, list_versions
from lorry_registry.ledger.version_status import (
    VersionStatus,
    describe_change,
    find_statuses,
    name_version_status,
)
from lorry_registry.manifest import Manifest
from lorry_registry.records.row_fingerprints import Labels, read_fingerprints
from lorry_registry.registry import Registry

GATE_DETAIL = "gate"
"""The key in an event's details: by what the gate decided."""


@dataclass(frozen=True, slots=True)
class Staleness:
    """Whether a task needs training.

    Attributes:
        is_stale: Whether it does.
        reason: Why, or why not, in a sentence.
        version: The version that is up to date, if one is.
        is_refused: Whether the gate refused that version.
        retired: ``rolled back`` or ``former champion``, if that version was in use once and is not any more.
        renewed: The adapter of that version, if it was refused by another gate than the task's, or against
            another champion, so that it is judged anew; None: it need not be.
        why_renewed: By what it was refused, in words.
    """

    is_stale: bool
    reason: str
    version: int | None = None
    is_refused: bool = False
    retired: str = ""
    renewed: str | None = None
    why_renewed: str = ""

    @property
    def has_work(self) -> bool:
        """Whether there is something to train or to judge."""
        return self.is_stale or self.renewed is not None


def assess_staleness(
    task: ResolvedTask,
    registry: Registry,
    *,
    data_digest: str | None = None,
    gather: Callable[[], Labels] | None = None,
) -> Staleness:
    """Compare what a task would be trained from with what its versions were trained from.

    Args:
        task: The task.
        registry: Where its versions are.
        data_digest: The digest of the task's rows, if they were read: then a source that has another form,
            and the same rows, makes nothing stale.
        gather: Returns those rows with their labels, to count how many changed.

    Raises:
        BaseModelError: The base is not usable.
        InvalidDataError: The source is not there.
        NotFoundError: The task was deleted: nothing that is trained could be registered.
    """
    state = registry.ledger.read_state(task.spec.name)
    require_present(state)
    events = registry.ledger.read_events(state)
    return compare_versions(task, registry, events, data_digest=data_digest, gather=gather)


def compare_versions(
    task: ResolvedTask,
    registry: Registry,
    events: Sequence[Event],
    *,
    data_digest: str | None = None,
    gather: Callable[[], Labels] | None = None,
) -> Staleness:
    """Do the same by a history that was read already.

    Args:
        task: The task, which was not deleted.
        registry: Where its versions are.
        events: Its history.
        data_digest: As for :func:`assess_staleness`.
        gather: As for :func:`assess_staleness`.

    Raises:
        BaseModelError: The base is not usable.
        InvalidDataError: The source is not there.
    """
    if not list_versions(events):
        return Staleness(is_stale=True, reason="it has no adapter yet")
    changes: dict[int, tuple[Manifest, dict[str, str]]] = {}
    for version in reversed(list_versions(events)):
        manifest = registry.read_version(task.spec.name, version.number, version.adapter_id)
        if manifest is None:
            # Its files were collected: no one could use it.
            continue
        changed = describe_changes(task, manifest, data_digest=data_digest)
        if not changed:
            return _describe_version(task, version, events)
        changes[version.number] = manifest, changed
    if not changes:
        return Staleness(is_stale=True, reason="the files of its adapters were collected")
    # As an inspection does: changes are counted against the champion, or else against the newest version.
    champion = events[-1].champion_after
    number = champion if champion in changes else max(changes)
    compared, changed = changes[number]
    if "data" in changed:
        changed["data"] = _count_changed_rows(registry, compared, gather) if gather is not None else ""
    reasons = [
        f"{name} changed since v{number}" + (f" ({how})" if how else "") for name, how in changed.items()
    ]
    return Staleness(is_stale=True, reason="; ".join(reasons))


def _count_changed_rows(registry: Registry, manifest: Manifest, gather: Callable[[], Labels]) -> str:
    """Return how many rows were added, removed and relabelled since a version; "" if no one can tell."""
    try:
        fingerprints = read_fingerprints(registry.store, manifest)
    except AdapterRejectedError:
        # It decides nothing, and verifying the adapter reports it.
        return ""
    return "" if fingerprints is None else fingerprints.compare(gather()).describe()


def describe_gate(task: ResolvedTask) -> dict[str, JsonValue]:
    """Return by what the gate decides on a task, as the history keeps it: what is not the default."""
    primary = task.spec.evaluate.primary or task.task_type.primary
    return {**task.spec.gate.model_dump(mode="json", exclude_defaults=True), "primary": primary}


def _describe_version(task: ResolvedTask, version: Version, events: Sequence[Event]) -> Staleness:
    """Return that a version is up to date, and what the gate makes of it now if it was refused."""
    found = f"v{version.number} was trained from the same data, base and recipe"
    status = find_statuses(events)[version.number]
    if status.role == "champion":
        return Staleness(is_stale=False, reason=found, version=version.number)
    if status.decision != "refused":
        return Staleness(
            is_stale=False,
            reason=f"{found}, but it is not in use: {_explain_retirement(task.spec.name, status, events)}",
            version=version.number,
            retired=name_version_status(status),
        )
    judged = [
        event
        for event in events
        if event.version == version.number
        and event.action in ("register", "judge")
        and event.details.get(GATE_DETAIL) == describe_gate(task)
    ]
    holding = [event for event in judged if _holds_still(event, events)]
    if holding:
        return Staleness(
            is_stale=False,
            reason=f"{found}, and the same gate refused it: {'; '.join(holding[-1].reasons)}",
            version=version.number,
            is_refused=True,
        )
    present = name_version(events[-1].champion_after)
    why = (
        f"it was refused against {name_version(find_judge(judged[-1]))}, and the champion is {present} now"
        if judged
        else "another gate refused it"
    )
    return Staleness(
        is_stale=False,
        reason=f"{found}, but {why}: it is judged anew, without training",
        version=version.number,
        is_refused=True,
        renewed=version.adapter_id,
        why_renewed=why,
    )


def _holds_still(judged: Event, events: Sequence[Event]) -> bool:
    """Return whether a refusal says something about the present champion.

    It does as long as the gate has put no other one in place than those that beat the champion of then. A
    person may have taken that one back, or put any other in its place.
    """
    champion = find_judge(judged)
    if champion == events[-1].champion_after or (champion is None and judged.champion_before is None):
        return True
    # It may have been refused only because the champion changed while it was judged.
    return champion == judged.champion_before and all(
        GATE_DETAIL in event.details or event.action in ("delete", "restore")
        for event in events[judged.sequence :]
        if event.is_promotion
    )


def _explain_retirement(task: str, status: VersionStatus, events: Sequence[Event]) -> str:
    """Return what took a version out of use, what is in use instead, and how to take it back."""
    champion = events[-1].champion_after
    changes = [describe_change(event, status.version) for event in status.changes[-1:]]
    present = f"the champion is v{champion}" if champion is not None else "there is no champion"
    again = f"to use v{status.version} again: lorry promote {task} v{status.version}"
    return "; ".join([*changes, present, again])
