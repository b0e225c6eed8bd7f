"""The state of a task: fresh, or the parts of it that changed since its champion was made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lorry_components.data.fingerprinting import PresentRows, read_present_rows
from lorry_components.data.object_cache import ObjectCache
from lorry_components.tasks.changes import Change, asks_for_libraries, find_changes, find_library_changes
from lorry_components.tasks.resolution import ResolvedTask
from lorry_components.tasks.staleness import Staleness, compare_versions
from lorry_registry.errors import AdapterRejectedError, InvalidDataError
from lorry_registry.ledger.ledger import require_present
from lorry_registry.ledger.promotion import Version, list_versions
from lorry_registry.manifest import Manifest
from lorry_registry.records.drift_records import read_drift
from lorry_registry.records.row_fingerprints import RowChanges, read_fingerprints
from lorry_registry.registry import Registry

State = Literal["fresh", "new", "stale", "to judge", "refused", "rolled back", "drifted"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """How a task stands.

    Attributes:
        task: The task.
        state: ``fresh``: a version was made of what is there; ``new``: it has no adapter yet; ``stale``;
            ``to judge``: such a version was refused by another gate or against another champion, and is
            judged anew without training;
            ``refused`` and ``rolled back``: it was, and stays so until something changes; ``drifted``: one
            was made of what is there, and new inputs are of another kind.
        reason: Why, in a sentence.
        staleness: What a run goes by.
        champion: The champion's version; None: there is none.
        version: The version that was made of what is there; None: none was.
        compared: The version that changes are counted from: the champion, or else the newest; None: there
            is none whose files are there.
        changes: What changed since then.
        rows: How the rows changed; None: the data did not, or no one can tell.
        notes: What else is worth knowing, a sentence each.
    """

    task: str
    state: State
    reason: str
    staleness: Staleness
    champion: int | None = None
    version: int | None = None
    compared: int | None = None
    changes: tuple[Change, ...] = ()
    rows: RowChanges | None = None
    notes: tuple[str, ...] = ()

    @property
    def has_work(self) -> bool:
        """Whether there is something to train or to judge."""
        return self.staleness.has_work

    @property
    def is_stale(self) -> bool:
        """Whether something is to be done, if only labelling rows."""
        return self.has_work or self.state == "drifted"


def inspect_task(
    task: ResolvedTask, registry: Registry, *, reads_rows: bool = True, cache: ObjectCache | None = None
) -> Inspection:
    """Compare a task with its champion, part by part.

    Data whose source has not moved are not read. Of a source that has, the rows are read and counted.

    Args:
        task: The task.
        registry: Where its versions are.
        reads_rows: Whether data that moved are read; if not, they are found by digests, and a source that has
            only another form counts as changed.
        cache: Where images of a source in S3 are kept.

    Raises:
        BaseModelError: The base is not usable.
        InvalidDataError: The source is not there.
        NotFoundError: The task was deleted.
    """
    state = registry.ledger.read_state(task.spec.name)
    require_present(state)
    events = registry.ledger.read_events(state)
    staleness = compare_versions(task, registry, events)
    compared = _choose_compared(task, registry, state.champion_version, list_versions(events))
    if compared is None:
        unknown: State = "stale" if list_versions(events) else "new"
        return Inspection(task.spec.name, unknown, staleness.reason, staleness)
    version, manifest = compared
    changes = find_changes(task, manifest)
    notes: list[str] = []
    present, rows = None, None
    if reads_rows and any(change.part == "data" for change in changes):
        present, rows = _count_rows(task, registry, version, manifest, notes, cache)
    if present is not None and not staleness.has_work:
        changes = find_changes(task, manifest, data_digest=present.data_digest)
    elif present is not None:
        staleness = compare_versions(task, registry, events, data_digest=present.data_digest)
        changes = find_changes(task, manifest, data_digest=present.data_digest)
        if not any(change.part == "data" for change in changes):
            notes.append("the source of the data has another form, and the same rows")
            rows = None
    if not asks_for_libraries(task.spec) and (libraries := find_library_changes(manifest)) is not None:
        notes.append(f"other libraries than v{version} was trained with: {libraries.how}")
    name = _name_state(staleness)
    if name == "fresh" and state.champion_version not in (None, staleness.version):
        notes.append(
            f"the champion is v{version}, which was made of something else; "
            f"lorry promote {task.spec.name} v{staleness.version} puts the other in its place"
        )
    reason = staleness.reason
    drift = read_drift(registry.store, task.spec.name)
    if drift is not None and drift.has_drifted and drift.concerns(state.champion):
        if name == "fresh":
            # The same rows would give the same adapter.
            name, reason = "drifted", f"{drift.describe()}; its data need labelled rows like those inputs"
        else:
            notes.append(drift.describe())
    return Inspection(
        task=task.spec.name,
        state=name,
        reason=reason,
        staleness=staleness,
        champion=state.champion_version,
        version=staleness.version,
        compared=version,
        changes=tuple(changes),
        rows=rows,
        notes=tuple(notes),
    )


def _choose_compared(
    task: ResolvedTask, registry: Registry, champion: int | None, versions: Sequence[Version]
) -> tuple[int, Manifest] | None:
    """Return the champion and its manifest, or the newest version of which there are files."""
    ordered = sorted(versions, key=lambda version: (version.number == champion, version.number), reverse=True)
    for version in ordered:
        manifest = registry.read_version(task.spec.name, version.number, version.adapter_id)
        if manifest is not None:
            return version.number, manifest
    return None


def _count_rows(
    task: ResolvedTask,
    registry: Registry,
    version: int,
    manifest: Manifest,
    notes: list[str],
    cache: ObjectCache | None,
) -> tuple[PresentRows | None, RowChanges | None]:
    try:
        present = read_present_rows(task.spec.data, task.task_type, cache=cache)
    except InvalidDataError as error:
        notes.append(f"the data cannot be used as they are: {error.faults[0].advice}")
        return None, None
    try:
        fingerprints = read_fingerprints(registry.store, manifest)
    except AdapterRejectedError as error:
        notes.append(f"how the rows changed is not known: {error.what}")
        return present, None
    if fingerprints is None:
        notes.append(f"how the rows changed is not known: v{version} has no row fingerprints")
        return present, None
    return present, fingerprints.compare(present.labels)


def _name_state(staleness: Staleness) -> State:
    if staleness.is_stale:
        return "stale"
    if staleness.renewed is not None:
        return "to judge"
    if staleness.is_refused:
        return "refused"
    return "rolled back" if staleness.retired == "rolled back" else "fresh"
