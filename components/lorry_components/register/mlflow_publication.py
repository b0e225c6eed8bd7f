"""Shows a registered version in MLflow: a logged model with the adapter's files, and a model version."""

import tempfile
from pathlib import Path

from lorry_components.inference.mlflow_flavor import FLAVOR_NAME, write_model
from lorry_registry.manifest import Manifest
from lorry_registry.mlflow_index import MlflowIndex, sync_aliases
from lorry_registry.promotion import Version, list_versions
from lorry_registry.registry import Registry


def publish_version(
    index: MlflowIndex, registry: Registry, *, task: str, version: Version, manifest: Manifest
) -> str:
    """Log a version's adapter to MLflow and record it as a model version. Again is harmless.

    Returns:
        MLflow's own number of the version.
    """
    known = index.find_version(task, version.adapter_id)
    if known is not None:
        return known
    event = version.registered
    run_id = event.details.get("mlflow_run_id")
    if not isinstance(run_id, str):
        run_id = index.open_run(task, name=f"v{version.number}", tags={"lorry.version": str(version.number)})
        index.close_run(run_id, failed=False)
    adapter = registry.fetch(version.adapter_id)
    model_id = index.create_model(task, run_id=run_id, model_type=manifest.kind, flavor=FLAVOR_NAME)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        write_model(
            folder, adapter=adapter, manifest=manifest, model=index.build_model_document(model_id, run_id)
        )
        source = index.upload_model(model_id, folder)
    return index.record_version(
        task,
        version=version.number,
        adapter_id=version.adapter_id,
        manifest=manifest,
        source=source,
        run_id=run_id,
        model_id=model_id,
        reasons=event.reasons,
        promoted=event.is_promotion,
    )


def reconcile_task(index: MlflowIndex, registry: Registry, task: str) -> list[str]:
    """Make MLflow show what the ledger says of a task: missing versions are added, aliases set right.

    Returns:
        What was changed, in sentences.
    """
    changes = []
    for version in list_versions(registry.ledger.read_history(task)):
        if index.find_version(task, version.adapter_id) is None:
            publish_version(
                index,
                registry,
                task=task,
                version=version,
                manifest=registry.read_manifest(version.adapter_id),
            )
            changes.append(f"v{version.number} was missing and is recorded now")
    return [*changes, *sync_aliases(index, registry, task)]
