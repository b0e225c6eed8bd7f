"""Runs the fine-tuning step from a component's arguments."""

import contextlib
import functools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from lorry_components.data.data_card import CARD_FILE, DataCard
from lorry_components.data.prepared import load_card
from lorry_components.hardware_id import describe_machine
from lorry_components.steps.finetune.learning_curve import CurveLog
from lorry_components.steps.finetune.mlflow_log import MlflowLog
from lorry_components.steps.finetune.run_inputs import (
    TASK_ARTIFACT,
    list_chosen_parameters,
    list_datasets,
    list_parameters,
    write_card,
    write_task_file,
)
from lorry_components.steps.finetune.step import finetune, name_checkpoints
from lorry_components.steps.runtime.outcomes import run_step
from lorry_components.steps.runtime.registered_candidate import RENEWED_DETAIL, RegisteredCandidate
from lorry_components.steps.runtime.step_context import StepContext
from lorry_components.tasks.resolution import ResolvedTask
from lorry_components.training.checkpoints.checkpoint_files import STATE_NAME, find_checkpoint
from lorry_components.training.checkpoints.stored_checkpoints import CheckpointPlace, find_place
from lorry_components.training.distributed.process_group import Finetune, finetune_in_processes
from lorry_components.training.probe.feature_cache import FeatureCache
from lorry_components.training.setup.starting_adapter import StartingAdapter
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.errors import TrackingError, TrainingError
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.mlflow.best_effort import BestEffort
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.mlflow.kubeflow_pages import PAGE_TAG, describe_kubeflow_run, tag_kubeflow_run
from lorry_registry.mlflow.version_card import NOTE_TAG, describe_model
from lorry_registry.mlflow.views import build_view
from lorry_registry.records.adapter_names import label_method, name_run
from lorry_registry.records.row_fingerprints import read_fingerprints
from lorry_registry.text.addresses import hide_secrets

_LOGGER = logging.getLogger(__name__)
# Beside the checkpoints of a training: the id of the MLflow run that shows it.
_RUN_NOTE = "mlflow_run"


def main(
    *,
    task: str,
    run: str,
    store: str,
    tracking_uri: str,
    checkpoints: str,
    data: str,
    candidate: str,
    metadata: dict[str, Any],
    force: bool = False,
    kfp_run: str = "",
) -> str:
    """Train a task's adapter; return whether the graph goes on.

    Args:
        task: The task as JSON.
        run: The run's id.
        store: The store's address.
        tracking_uri: MLflow's address; empty: the environment's.
        checkpoints: A folder, ``store`` for a place in the store, or ``s3://bucket/prefix``; empty: a folder
            beside the candidate.
        data: What ``prepare_data`` wrote.
        candidate: Where to write the candidate.
        metadata: Kubeflow's, of the candidate.
        force: Whether to train from the start even if a former run left checkpoints. A retry of this step in
            the same run goes on from this run's own.
        kfp_run: Kubeflow's id of the run.
    """
    entry = StepContext.open("finetune", task=task, run=run, store=store, tracking_uri=tracking_uri)
    resolved, spec, index = entry.task, entry.spec, entry.index

    def body() -> dict[str, JsonValue]:
        target = Path(candidate)
        renewed = entry.find_detail(RENEWED_DETAIL)
        if renewed is not None:
            registered = RegisteredCandidate.model_validate_json(renewed)
            registered.save(target)
            return {"reused": registered.version}
        start = _find_start(entry) if spec.train.start == "champion" else None
        name = name_checkpoints(resolved, Path(data), forced_by=run if force else "", start=start)
        place = find_place(checkpoints, name, store=store, options=entry.settings.s3, notes=(_RUN_NOTE,))
        root = Path(checkpoints) if checkpoints and place is None else target.with_name("checkpoints")
        kept = root / name
        if place is not None:
            _fetch_checkpoint(place, kept)
        kubeflow = _name_kubeflow(entry, kfp_run)
        run_id = _open_run(entry, run, kept / _RUN_NOTE, kubeflow)
        with _marking_failure(index, run_id):
            _show_inputs(entry, run_id, load_card(Path(data)))
            log = MlflowLog(index, run_id)
            curve = CurveLog(log, spec.evaluate.primary or resolved.task_type.primary)
            checkpoint = find_checkpoint(kept)
            if checkpoint is not None:
                curve.take_over(checkpoint / STATE_NAME)
            if spec.resources.nodes > 1 and entry.train_job:
                train = _prepare_nodes(entry, task, run, run_id, store, tracking_uri)
            else:
                cache = FeatureCache(entry.settings.features, limit=entry.settings.cache_bytes)
                train = _choose_training(spec.resources.count, cache, start)
            summary = train(
                resolved,
                Path(data),
                target,
                checkpoints=kept,
                progress=entry.progress,
                log_metrics=curve,
                place=place,
            )
            log.log_parameters(list_chosen_parameters(spec, summary))
        page = _locate_run(index, run_id)
        metadata.update({"task": spec.name, "mlflow_run_id": run_id, "method": spec.method.name})
        # Kubeflow's page of the artifact shows its metadata: the way from there to MLflow.
        metadata.update({"lorry.mlflow_run": run_id, **({"lorry.mlflow_url": page} if page else {})})
        return {
            "mlflow_run_id": run_id,
            **({"mlflow_url": page} if page else {}),
            **({"kfp_url": kubeflow[PAGE_TAG]} if PAGE_TAG in kubeflow else {}),
            "method": spec.method.name,
            "trained_parameters": summary.parameters.trained,
            "learning_rate": summary.learning_rate,
            "train_seconds": summary.seconds,
            "examples_per_second": summary.examples_per_second,
            "steps": summary.steps,
            "resumed_from": summary.resumed_from,
            "device": summary.device,
            "precision": summary.precision,
            "checkpoints": name,
            "machine": describe_machine(),
            "curve": curve.describe(),
            **_describe_start(start, summary),
            **({"kept_start": summary.kept_start} if summary.kept_start else {}),
            # How long it took says something of the same kind of machine only.
            **({"placed": spec.resources.model_dump(mode="json")} if entry.is_in_pod else {}),
        }

    return run_step(entry.record, spec.name, "finetune", body)


def _find_start(entry: StepContext) -> StartingAdapter | None:
    """Return the champion that the training is to begin with; None: there is none."""
    champion = entry.registry.ledger.read_state(entry.spec.name).champion
    if champion is None:
        return None
    manifest = entry.registry.read_manifest(champion.adapter_id)
    return StartingAdapter(
        version=champion.version,
        adapter_id=champion.adapter_id,
        folder=entry.registry.fetch(champion.adapter_id),
        manifest=manifest,
        fingerprints=read_fingerprints(entry.store, manifest),
    )


def _describe_start(start: StartingAdapter | None, summary: TrainingSummary) -> dict[str, JsonValue]:
    """Return with which version a training began, or why it began with the base, for the report."""
    if start is None:
        return {}
    return {"start_refused": summary.start_refused} if summary.start_refused else {"start": start.version}


def _choose_training(wanted: int, features: FeatureCache, start: StartingAdapter | None) -> Finetune:
    """Return what trains in one process for each GPU that the task asks for and that is here."""
    alone = functools.partial(finetune, features=features, start=start)
    if wanted <= 1:
        return alone
    import torch

    count = min(wanted, torch.cuda.device_count())
    return functools.partial(finetune_in_processes, alone, count) if count > 1 else alone


def _prepare_nodes(
    entry: StepContext, task: str, run: str, mlflow_run: str, store: str, tracking_uri: str
) -> Finetune:
    """Return what trains on several nodes of the cluster that this step is in."""
    from lorry_components.steps.finetune.multi_node.multi_node_job import MultiNodeJob, name_job
    from lorry_components.steps.finetune.multi_node.node_channel import NodeChannel, NodeWork, name_channel
    from lorry_components.steps.finetune.multi_node.train_job_settings import read_train_job_settings
    from lorry_components.steps.finetune.multi_node.train_jobs import TrainJobs
    from lorry_components.steps.runtime.kubernetes_api import KubernetesApi

    name = entry.spec.name

    def train(
        _task: ResolvedTask, data: Path, target: Path, *, place: CheckpointPlace | None, **_: object
    ) -> TrainingSummary:
        if place is None:
            raise TrainingError(
                "nodes need a place for checkpoints that all of them reach",
                where=name,
                todo="leave LORRY_CHECKPOINTS unset, or set it to store or s3://BUCKET/PREFIX",
            )
        training = MultiNodeJob(
            TrainJobs(KubernetesApi.open()),
            NodeChannel(entry.store, name_channel(run, name)),
            read_train_job_settings(entry.train_job),
            name_job(run, name, place.key),
        )
        work = NodeWork(
            task=task,
            run=run,
            tracking_uri=tracking_uri,
            mlflow_run=mlflow_run,
            checkpoints=place.address,
            checkpoints_key=place.key,
            notes=place.notes,
        )
        return training.run(work, data, target, store=store)

    return train


def _fetch_checkpoint(place: CheckpointPlace, folder: Path) -> None:
    """Fetch what a former attempt left in a store, once it is sure that this one can write there."""
    stored = place.open()
    stored.store.check_writable()
    found = stored.restore(folder)
    if found is not None:
        _LOGGER.info("training goes on from %s of %s/%s", found.name, place.address, place.key)


def _name_kubeflow(entry: StepContext, run: str) -> dict[str, str]:
    """Return the tags that lead from an MLflow run to the Kubeflow run; a local runner has none."""
    if not entry.is_in_pod or not run:
        return {}
    tags = tag_kubeflow_run(hide_secrets(entry.settings.kubeflow.host), run)
    return {**tags, NOTE_TAG: describe_kubeflow_run(tags)}


def _open_run(entry: StepContext, run: str, note: Path, kubeflow: Mapping[str, str]) -> str:
    """Open the task's MLflow run; a training that continues from a checkpoint continues its run, too."""
    spec, index = entry.spec, entry.index
    parameters = list_parameters(spec)
    name = name_run(spec.name, label_method(parameters))
    tags = {
        "lorry.run": run,
        "lorry.kind": spec.kind,
        "lorry.base": spec.base.model,
        "lorry.method": spec.method.name,
        **_name_source(entry),
        **kubeflow,
    }
    if entry.injected_run is None and note.is_file():
        try:
            return index.open_run(spec.name, name=name, tags=tags, run_id=note.read_text("utf-8"))
        except TrackingError as error:
            _LOGGER.info("a new MLflow run is opened, since the former one is gone: %s", error)
    run_id = index.open_run(
        spec.name,
        name=name,
        tags=tags,
        run_id=entry.injected_run,
        registry_id=entry.registry.registry_id,
    )
    index.log_parameters(run_id, parameters)
    note.parent.mkdir(parents=True, exist_ok=True)
    write_whole_text(note, run_id)
    return run_id


def _name_source(entry: StepContext) -> dict[str, str]:
    """Return MLflow's own tags about what made a run: Lorry, and the commit of the task's file."""
    source = entry.build.source
    tags = {"mlflow.source.name": "lorry", "mlflow.source.type": "JOB" if entry.is_in_pod else "LOCAL"}
    return tags | ({"mlflow.source.git.commit": source.commit} if source is not None else {})


def _locate_run(index: MlflowIndex, run_id: str) -> str:
    try:
        return index.locate_run(run_id)
    except TrackingError as error:
        _LOGGER.warning("the page of the MLflow run is not known: %s", error)
        return ""


def _show_inputs(entry: StepContext, run_id: str, card: DataCard) -> None:
    """Show in MLflow what a training is made from; repeating it is harmless.

    Training does not need it: when MLflow does not take it, training goes on.
    """
    spec, index = entry.spec, entry.index
    mlflow = BestEffort(f"MLflow does not show what {spec.name} is trained from")
    mlflow.attempt(lambda: index.log_datasets(run_id, list_datasets(card)))
    mlflow.attempt(lambda: index.log_text(run_id, write_task_file(spec, card), TASK_ARTIFACT))
    mlflow.attempt(lambda: index.log_text(run_id, write_card(card), CARD_FILE))
    description = describe_model(spec.name, spec.description, spec.base.model)
    mlflow.attempt(lambda: index.describe_experiment(spec.name, description))
    primary = spec.evaluate.primary or entry.task.task_type.primary
    mlflow.attempt(lambda: index.show_view(spec.name, build_view(primary)))


@contextlib.contextmanager
def _marking_failure(index: MlflowIndex, run_id: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        # The run's report never hears of this MLflow run, and would leave it going for ever.
        BestEffort("MLflow shows this training as still going").attempt(
            lambda: index.close_run(run_id, failed=True)
        )
        raise
