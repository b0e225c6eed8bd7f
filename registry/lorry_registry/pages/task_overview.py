"""An overview of every task: its champion, its versions, the gate's reasons."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from lorry_registry.errors import LorryError
from lorry_registry.ledger.events import Event
from lorry_registry.ledger.promotion import Version, list_versions
from lorry_registry.ledger.version_status import VersionStatus, find_statuses
from lorry_registry.manifest import Manifest, MetricValue
from lorry_registry.records.adapter_names import label_method
from lorry_registry.records.training_record import read_record
from lorry_registry.registry import Registry, TaskEntry

# A trend of more versions than these cannot be read, and each costs a look into the store.
_SHOWN_VERSIONS = 30


@dataclass(frozen=True, slots=True)
class VersionOverview:
    """One version.

    Attributes:
        number: Its number.
        status: Its status in the ledger.
        registered: The event that registered it.
        metric: Its value of the task's metric; None if it has none, or its manifest cannot be read.
        method: Its method with its size, or empty.
    """

    number: int
    status: VersionStatus
    registered: Event
    metric: MetricValue | None
    method: str


@dataclass(frozen=True, slots=True)
class TaskOverview:
    """One task.

    Attributes:
        task: Its name.
        manifest: The champion's; the newest readable one if there is no champion; None if there is neither.
        champion: The champion's version, if there is a champion.
        promoted_at: When it became the champion.
        versions: The newest versions, the oldest first.
        count: How many versions there are in all.
        warnings: What to know of the champion's data before trusting its score, a sentence each.
    """

    task: str
    manifest: Manifest | None
    champion: int | None
    promoted_at: datetime | None
    versions: tuple[VersionOverview, ...]
    count: int
    warnings: tuple[str, ...] = ()


def describe_tasks(
    registry: Registry, tasks: Iterable[str]
) -> tuple[list[TaskOverview], dict[str, LorryError]]:
    """Return an overview of each task, and of each that cannot be read the error."""
    found: list[TaskOverview] = []
    problems: dict[str, LorryError] = {}
    for task in tasks:
        try:
            found.append(describe_task(registry, registry.describe_task(task)))
        except LorryError as error:
            # One damaged task does not hide the others.
            problems[task] = error
    return found, problems


def describe_task(registry: Registry, entry: TaskEntry) -> TaskOverview:
    """Return the overview of a task.

    Raises:
        StoreError: Its history cannot be read.
    """
    events = registry.ledger.read_history(entry.task)
    statuses = find_statuses(events)
    versions = list_versions(events)
    shown = versions[-_SHOWN_VERSIONS:]
    manifests = {version.number: _read_manifest(registry, version.adapter_id) for version in shown}
    manifest = entry.manifest or next((each for each in reversed(manifests.values()) if each), None)
    return TaskOverview(
        task=entry.task,
        manifest=manifest,
        champion=entry.champion.version if entry.champion else None,
        promoted_at=entry.champion.promoted_at if entry.champion else None,
        versions=tuple(
            VersionOverview(
                number=version.number,
                status=statuses[version.number],
                registered=version.registered,
                metric=_find_metric(manifests[version.number], manifest),
                method=_label(manifests[version.number]),
            )
            for version in shown
        ),
        count=len(versions),
        warnings=_read_warnings(registry, entry, versions),
    )


def _read_warnings(registry: Registry, entry: TaskEntry, versions: Sequence[Version]) -> tuple[str, ...]:
    champion, manifest = entry.champion, entry.manifest
    if champion is None or manifest is None:
        return ()
    registered = next(each.registered for each in versions if each.number == champion.version)
    record = read_record(registry.store, manifest, registered)
    return (*record.warnings, *filter(None, [record.problem]))


def _read_manifest(registry: Registry, adapter_id: str) -> Manifest | None:
    try:
        return registry.read_manifest(adapter_id)
    except LorryError:
        # An old version may have been removed, or damaged: ``lorry verify`` says so, an overview goes on.
        return None


def _find_metric(manifest: Manifest | None, shown: Manifest | None) -> MetricValue | None:
    """Return a version's value of the metric that is shown of a task; None: of that it has none."""
    if manifest is None or shown is None or manifest.kind != shown.kind:
        return None
    metric = shown.evaluation.primary
    is_same = manifest.evaluation.name_metric(metric) == shown.evaluation.name_metric(metric)
    return manifest.evaluation.metrics.get(metric) if is_same else None


def _label(manifest: Manifest | None) -> str:
    return label_method(manifest.recipe) or manifest.method if manifest else ""
