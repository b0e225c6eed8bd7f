"""Makes the tags of MLflow's versions say what the versions hold, after an edit in MLflow."""

from typing import TYPE_CHECKING

from lorry_registry.ledger.events import Event
from lorry_registry.ledger.promotion import Version, find_version, list_versions
from lorry_registry.ledger.version_status import find_statuses
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.mlflow.model_versions import ADAPTER_TAG
from lorry_registry.mlflow.version_card import (
    DECISION_TAG,
    STATUS_TAG,
    describe_model,
    list_version_tags,
    name_decision,
)
from lorry_registry.mlflow.views import build_view
from lorry_registry.records.training_record import read_record
from lorry_registry.registry import Registry

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def repair_versions(index: MlflowIndex, registry: Registry, task: str) -> list[str]:
    """Correct the tags of every version that Lorry recorded, by the files that the version holds.

    A version whose files are no longer those of an adapter of the task loses the tag that names its adapter,
    so that nothing takes it for that adapter. Versions without any tag of Lorry's are left alone.

    Returns:
        What was changed, in sentences.

    Raises:
        TrackingError: MLflow cannot be reached.
        StoreError: The ledger cannot be read.
    """
    events = registry.ledger.read_history(task)
    known = {version.adapter_id: version for version in list_versions(events)}
    changes: list[str] = []
    for recorded in index.list_model_versions(task):
        if not any(key.startswith("lorry.") for key in recorded.tags):
            continue
        held = index.identify_version(recorded)
        if held in known:
            changes += _correct_tags(index, registry, recorded, known[held], events)
        elif ADAPTER_TAG in recorded.tags:
            index.remove_version_tag(task, str(recorded.version), ADAPTER_TAG)
            changes.append(
                f"MLflow's version {recorded.version} was recorded as adapter {recorded.tags[ADAPTER_TAG]}, "
                f"but its files are {'those of ' + held if held else 'not that adapter'}: it no longer "
                "counts as a version of this task"
            )
    return changes


def remove_twins(index: MlflowIndex, registry: Registry, task: str) -> list[str]:
    """Remove each version that holds the same adapter as an earlier one.

    A request that was sent again, since its answer was lost, leaves such twins; so do two processes of which
    one was killed before it gave way. Versions without any tag of Lorry's are left alone.

    Returns:
        What was removed, in sentences.

    Raises:
        TrackingError: MLflow cannot be reached.
        StoreError: The ledger cannot be read.
    """
    known = {version.adapter_id for version in list_versions(registry.ledger.read_history(task))}
    first: dict[str, str] = {}
    changes: list[str] = []
    for recorded in index.list_model_versions(task):
        adapter_id, number = recorded.tags.get(ADAPTER_TAG), str(recorded.version)
        if adapter_id not in known or index.identify_version(recorded) != adapter_id:
            continue
        if first.setdefault(adapter_id, number) != number:
            index.remove_version(task, number)
            changes.append(
                f"MLflow's version {number} held the same adapter as version {first[adapter_id]}, "
                "and was removed"
            )
    return changes


def restore_training(index: MlflowIndex, registry: Registry, task: str) -> list[str]:
    """Restore a task's experiment and the run that trained its champion, if they were deleted in MLflow.

    Returns:
        What was restored, and what cannot be, in sentences.

    Raises:
        TrackingError: MLflow cannot be reached, or the experiment is not this registry's.
        StoreError: The ledger cannot be read.
    """
    champion = registry.ledger.read_state(task).champion
    changes: list[str] = []
    if index.restore_experiment(task, registry.registry_id):
        changes.append("the experiment was deleted in MLflow, and is restored now")
    run_id = index.find_run(task, champion.adapter_id) if champion is not None else None
    if champion is None or run_id is None:
        return changes
    if not index.has_run(run_id):
        what = "is restored now" if index.restore_run(run_id) else "cannot be restored: its curves are lost"
        name = f"the run that trained the champion, v{champion.version},"
        changes.append(f"{name} was deleted in MLflow, and {what}")
    return changes


def report_copies(index: MlflowIndex, task: str) -> list[str]:
    """Return, in sentences, which other registered models have versions with the tags of a task's.

    Who copies a version in MLflow copies its tags. They are left as they are, since the model is not Lorry's.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    return [
        f"version {copy.version} of the registered model {copy.name!r} is a copy and has the tags of "
        f"v{copy.tags.get('lorry.version', '?')}: its {STATUS_TAG}, {copy.tags.get(STATUS_TAG, 'not set')}, "
        "does not follow the ledger; it was left as it is: remove its tags, or the copy"
        for copy in index.find_copies(task)
    ]


def _correct_tags(
    index: MlflowIndex, registry: Registry, recorded: "ModelVersion", version: Version, events: list[Event]
) -> list[str]:
    manifest = registry.read_version(str(recorded.name), version.number, version.adapter_id)
    if manifest is None:
        # Its tags cannot be compared any more; MLflow keeps its own copy of the files.
        return []
    wanted = list_version_tags(
        manifest,
        version=version.number,
        adapter_id=version.adapter_id,
        promoted=version.registered.is_promotion,
    )
    status = find_statuses(events)[version.number]
    wanted[DECISION_TAG] = status.decision
    # A decision that the ledger held before is no edit: it is out of date, and ``show_statuses`` says so.
    decisions = {
        name_decision(event.is_promotion)
        for event in events
        if event.version == version.number and event.action in ("register", "promote", "rollback")
    }
    if recorded.tags.get(DECISION_TAG) in decisions:
        wanted[DECISION_TAG] = recorded.tags[DECISION_TAG]
    wrong = {key: value for key, value in wanted.items() if recorded.tags.get(key) != value}
    if wrong:
        index.set_version_tags(manifest.task, str(recorded.version), wrong)
    name = f"MLflow's version {recorded.version}, which holds v{version.number}"
    lacking = [key for key in wrong if key not in recorded.tags]
    changes = [
        f"the tag {key} of {name}, was {recorded.tags[key] or 'empty'}, and is now {value}"
        for key, value in wrong.items()
        if key not in lacking
    ]
    # Another process may have removed them.
    if lacking:
        tags = f"tag {lacking[0]}" if len(lacking) == 1 else f"tags {', '.join(lacking)}"
        changes.append(f"{name}, lacked the {tags}, and has {'it' if len(lacking) == 1 else 'them'} now")
    return changes


def show_statuses(
    index: MlflowIndex, registry: Registry, task: str, *, all_versions: bool = False
) -> list[str]:
    """Make the pages of a task say what the ledger says now: what is in use, what was rolled back and why.

    Args:
        index: MLflow.
        registry: The registry.
        task: The task.
        all_versions: Whether every version is looked at, or only those that the newest event concerns.

    Returns:
        What was changed, in sentences.

    Raises:
        TrackingError: MLflow cannot be reached, or the registered model is not this registry's.
        StoreError: The ledger cannot be read.
    """
    index.check_model(task, registry.registry_id)
    events = registry.ledger.read_history(task)
    statuses = find_statuses(events)
    before = {} if all_versions else find_statuses(events[:-1])
    changes: list[str] = []
    for number, status in statuses.items():
        if before.get(number) == status:
            continue
        recorded = index.find_version(task, status.adapter_id)
        # A page whose version's files were collected stays as it is.
        manifest = registry.read_version(task, number, status.adapter_id) if recorded else None
        if recorded is not None and manifest is not None:
            registered = find_version(events, number, task=task).registered
            record = read_record(registry.store, manifest, registered)
            changes += index.show_version(recorded, manifest, status, record)
    if not statuses:
        return changes
    champion = next((each for each in statuses.values() if each.role == "champion"), None)
    shown = champion or statuses[max(statuses)]
    manifest = registry.read_version(task, shown.version, shown.adapter_id)
    if manifest is None:
        return changes
    changes += index.show_model(manifest, champion)
    if index.describe_experiment(task, describe_model(task, manifest.description, manifest.base.model)):
        changes.append("the experiment has a description now")
    if index.show_view(task, build_view(manifest.evaluation.primary)):
        changes.append("the experiment has a view of its results now")
    return changes
