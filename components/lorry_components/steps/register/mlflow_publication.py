"""Shows a registered version in MLflow: a logged model with the adapter's files, and a model version."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorry_components.inference.mlflow_flavor import FLAVOR_NAME, write_model
from lorry_registry.ledger.promotion import Version, list_versions
from lorry_registry.ledger.version_status import find_statuses
from lorry_registry.manifest import Manifest
from lorry_registry.mlflow.adoption import adopt_champion
from lorry_registry.mlflow.index import MlflowIndex, sync_aliases
from lorry_registry.mlflow.repair import (
    remove_twins,
    repair_versions,
    report_copies,
    restore_training,
    show_statuses,
)
from lorry_registry.mlflow.views import OPTIONS_PARAMETER, describe_options, list_results
from lorry_registry.records.adapter_names import name_run
from lorry_registry.records.training_record import TrainingRecord, read_record
from lorry_registry.registry import Registry
from lorry_registry.signing.adapter_signatures import SIGNATURES_FOLDER
from lorry_registry.signing.attestations import copy_sidecars


@dataclass(frozen=True, slots=True)
class _LoggedModel:
    """Where MLflow has an adapter's files."""

    source: str
    run_id: str | None
    model_id: str | None


def publish_version(
    index: MlflowIndex, registry: Registry, *, task: str, version: Version, manifest: Manifest
) -> str:
    """Log a version's adapter to MLflow and record it as a model version.

    Doing so again is harmless: the files of a version that MLflow knows are not sent twice, but its
    description of the version is set right.

    Returns:
        MLflow's own number of the version.

    Raises:
        TrackingError: MLflow cannot be reached, or has a registered model of this name that is not this
            registry's; nothing was written then.
    """
    # Files that went to the place where a moved MLflow was before would be lost to it.
    index.check_place()
    index.claim_model(task, manifest, registry.registry_id)
    is_known = index.find_version(task, version.adapter_id) is not None
    logged = (
        _LoggedModel("", None, None)
        if is_known
        else _log_model(index, registry, task=task, version=version, manifest=manifest)
    )
    number = index.record_version(
        task,
        version=version.number,
        adapter_id=version.adapter_id,
        manifest=manifest,
        source=logged.source,
        run_id=logged.run_id,
        model_id=logged.model_id,
        reasons=version.registered.reasons,
        promoted=version.registered.is_promotion,
        status=find_statuses(registry.ledger.read_history(task)).get(version.number),
        record=read_record(registry.store, manifest, version.registered),
    )
    # The former champion's page must not call it the champion any longer.
    show_statuses(index, registry, task)
    return number


def _log_model(
    index: MlflowIndex, registry: Registry, *, task: str, version: Version, manifest: Manifest
) -> _LoggedModel:
    run_id = version.registered.details.get("mlflow_run_id")
    if not isinstance(run_id, str) or not index.has_run(run_id):
        # No training was logged, or it was logged to another MLflow.
        record = read_record(registry.store, manifest, version.registered)
        run_id = index.open_run(
            task,
            name=name_run(task, record.label_method(manifest.recipe)),
            tags={"lorry.version": str(version.number)},
            registry_id=registry.registry_id,
        )
        index.log_parameters(run_id, _list_parameters(manifest, record))
        index.close_run(run_id, failed=False)
    model_id = index.create_model(task, run_id=run_id, model_type=manifest.kind, flavor=FLAVOR_NAME)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        document = index.build_model_document(model_id, run_id)
        write_model(folder, adapter=registry.fetch(version.adapter_id), manifest=manifest, model=document)
        # Anyone who loads the model from MLflow alone can check who signed it.
        copy_sidecars(registry.store, version.adapter_id, SIGNATURES_FOLDER, folder)
        source = index.upload_model(model_id, folder)
    # A model version shows no metrics of its own; the logged model that it points to does.
    index.log_metrics(run_id, list_results(manifest.evaluation), model_id=model_id)
    return _LoggedModel(source, run_id, model_id)


def _list_parameters(manifest: Manifest, record: TrainingRecord) -> dict[str, Any]:
    """Return the recipe of a training, with what the training chose as far as that was kept."""
    parameters: dict[str, Any] = {**manifest.recipe, "base": {"model": manifest.base.model}}
    facts = record.facts
    if facts is None:
        return parameters
    method, train = dict(parameters.get("method") or {}), dict(parameters.get("train") or {})
    if facts.options:
        method["options"] = facts.options
        parameters[OPTIONS_PARAMETER] = describe_options(facts.options)
    # What is not known is not shown as the task's file has it: few rows take smaller batches.
    train["batch_size"] = facts.batch_size
    if facts.steps:
        train |= {"steps": facts.steps, "learning_rate": facts.learning_rate}
    return {**parameters, "method": method, "train": train}


def reconcile_task(
    index: MlflowIndex, registry: Registry, task: str, *, adopt_alias: bool = False
) -> list[str]:
    """Make MLflow agree with the ledger on a task: places, tags, versions, aliases and descriptions.

    Args:
        index: MLflow.
        registry: The registry.
        task: The task.
        adopt_alias: Whether a champion that a person chose in MLflow is promoted in the ledger first.

    Returns:
        The changes, in sentences.

    Raises:
        TrackingError: MLflow cannot be reached, or the registered model is not this registry's.
        ConflictError: The alias cannot be adopted.
    """
    index.check_model(task, registry.registry_id)
    changes = index.follow_relocation()
    changes += repair_versions(index, registry, task)
    changes += remove_twins(index, registry, task)
    if adopt_alias and (event := adopt_champion(index, registry, task)) is not None:
        changes.append(f"v{event.version} is now the ledger's champion, as {event.reasons[0]}")
    if registry.ledger.read_state(task).deleted is None:
        changes += restore_training(index, registry, task)
        changes += _publish_missing(index, registry, task)
    changes += sync_aliases(index, registry, task)
    changes += show_statuses(index, registry, task, all_versions=True)
    return [*changes, *report_copies(index, task)]


def _publish_missing(index: MlflowIndex, registry: Registry, task: str) -> list[str]:
    changes: list[str] = []
    for version in list_versions(registry.ledger.read_history(task)):
        if index.find_version(task, version.adapter_id) is not None:
            continue
        manifest = registry.read_version(task, version.number, version.adapter_id)
        # A version whose files were collected cannot be shown any more.
        if manifest is not None:
            publish_version(index, registry, task=task, version=version, manifest=manifest)
            changes.append(f"v{version.number} was missing and is recorded now")
    return changes
