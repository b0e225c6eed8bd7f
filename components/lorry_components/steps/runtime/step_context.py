"""The edge of a step: from a component's strings to the objects that the plain functions take.

A container is configured by its environment, and a step reads it here and nowhere below.
"""

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import JsonValue

from lorry_components.process_setup import conceal_secrets, ease_garbage_collection, quiet_libraries
from lorry_components.processors import limit_own_threads
from lorry_components.progress import Progress, ProgressFile, ignore_progress
from lorry_components.steps.runtime.build_facts import read_build
from lorry_components.steps.runtime.outcomes import RunRecord, run_step
from lorry_components.steps.runtime.step_progress import StepProgress
from lorry_components.tasks.resolution import ResolvedTask, resolve_task
from lorry_registry.errors import TrackingError
from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.records.provenance import Build
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings
from lorry_registry.stores import Store, open_store
from lorry_registry.tasks.task_loading import place_base
from lorry_registry.tasks.task_references import label_task, read_task
from lorry_registry.tasks.task_spec import TaskSpec

# The folder in which a local run looks for progress files; unset on a cluster.
PROGRESS_VARIABLE = "LORRY_PROGRESS"
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
# Set by the Kubeflow backend's MLflow plugin.
INJECTED_RUN_VARIABLE = "MLFLOW_RUN_ID"
# Set by Kubernetes in each pod.
_POD_VARIABLE = "KUBERNETES_SERVICE_HOST"
TRAIN_JOB_VARIABLE = "LORRY_TRAIN_JOB"
"""Says how the nodes of a training are placed, in a fine-tuning step that trains on several."""


@dataclass(frozen=True, slots=True)
class StepContext:
    """The surroundings of a step, opened once in its process.

    Attributes:
        task: The task; what it names is resolved when it is first asked for.
        record: Where the step's outcome is kept.
        registry: Adapters and ledgers.
        index: MLflow.
        progress: Called with how far the step is.
        injected_run: The MLflow run that the backend opened for this step, if it did.
        build: What the environment says about this run, for the provenance of its adapters.
        settings: Where things are on this machine.
        train_job: How the nodes of a training are placed, as JSON; empty where it trains in this very step.
        is_in_pod: Whether this process is in a pod of a cluster.
    """

    task: ResolvedTask
    record: RunRecord
    registry: Registry
    index: MlflowIndex
    progress: Progress
    injected_run: str | None
    build: Build
    settings: Settings
    train_job: str = ""
    is_in_pod: bool = False

    @classmethod
    def open(cls, step: str, *, task: str, run: str, store: str, tracking_uri: str) -> Self:
        """Read a component's arguments and the environment of this process.

        Args:
            step: The step's name.
            task: The task: a reference to its document in the store, or the document itself as JSON.
            run: The run's id.
            store: The store's address.
            tracking_uri: MLflow's address; empty: the environment's.

        Raises:
            InvalidTaskError: The task is neither, or its document has faults.
            StoreError: The document is not in the store, or it was changed.
            TrackingError: No address of MLflow is given.
        """
        quiet_libraries()
        ease_garbage_collection()
        environment = os.environ
        limit_own_threads()
        secrets = conceal_secrets(environment)
        settings = Settings.load(environment, Path.cwd())
        opened = open_store(store, settings.s3)
        spec = place_base(read_task(task, opened), settings.base_place)
        resolved = resolve_task(spec, digest=DigestCache(settings.digests).digest_file)
        record = RunRecord(opened, run, secrets=secrets)
        return cls(
            task=resolved,
            record=record,
            registry=Registry.open(settings, opened),
            index=MlflowIndex(choose_tracking_uri(tracking_uri, environment)),
            progress=_open_progress(environment, record, resolved.spec.name, step),
            injected_run=environment.get(INJECTED_RUN_VARIABLE) or None,
            build=read_build(environment, resolved.spec.name, run=run, image=settings.image),
            settings=settings,
            train_job=environment.get(TRAIN_JOB_VARIABLE, ""),
            is_in_pod=_POD_VARIABLE in environment,
        )

    def find_mlflow_run(self) -> str | None:
        """Return the MLflow run that fine-tuning opened for this task."""
        return self.find_detail("mlflow_run_id")

    def find_detail(self, name: str) -> str | None:
        """Return what an earlier step of this task recorded under a name."""
        for outcome in self.record.read(self.spec.name):
            detail = outcome.details.get(name)
            if isinstance(detail, str):
                return detail
        return None

    def describe_build(self, mlflow_run: str | None) -> Build:
        """Return what is known of this run of the task, up to now.

        Args:
            mlflow_run: MLflow's id of the run, if there is one.
        """
        started = [outcome.started_at for outcome in self.record.read(self.spec.name)]
        return self.build.model_copy(
            update={
                "mlflow_run": mlflow_run or "",
                "started_at": min(started, default=None),
                "finished_at": datetime.now(UTC),
            }
        )

    @property
    def spec(self) -> TaskSpec:
        """The task's specification."""
        return self.task.spec

    @property
    def store(self) -> Store:
        """The store."""
        return self.registry.store


def enter_step(step: str, *, task: str, run: str, store: str, **arguments: Any) -> str:
    """Run the entry of a step from a component's arguments; return whether the graph goes on.

    A failure before the entry keeps outcomes itself, such as a library that cannot be imported or a task that
    cannot be read, is kept here. Were the step to fail, the graph would take the other tasks down with it.

    Args:
        step: The step's name.
        task: The task: a reference to its document in the store, or the document itself as JSON.
        run: The run's id.
        store: The store's address.
        arguments: What else the entry takes.

    Raises:
        StoreError: The store cannot be reached, so that no task of the run could succeed.
    """
    try:
        entry = importlib.import_module(f"lorry_components.steps.{step}.entry")
        return str(entry.main(task=task, run=run, store=store, **arguments))
    except Exception as error:  # noqa: BLE001 - it is kept as the step's outcome
        return _record_failure(error, step, task=task, run=run, store=store)


def _record_failure(error: Exception, step: str, *, task: str, run: str, store: str) -> str:
    settings = Settings.load(os.environ, Path.cwd())
    record = RunRecord(open_store(store, settings.s3), run, secrets=conceal_secrets(os.environ))

    def body() -> dict[str, JsonValue]:
        raise error

    return run_step(record, label_task(task), step, body)


def choose_tracking_uri(given: str, environment: Mapping[str, str]) -> str:
    """Return the address of MLflow: a component's argument, or the environment's where that is empty.

    An address with a password must not be an argument: arguments are kept with a run, where everyone can read
    them.

    Raises:
        TrackingError: Neither is given.
    """
    address = given or environment.get(TRACKING_VARIABLE, "")
    if not address:
        raise TrackingError(
            "no address of MLflow is given",
            where="tracking_uri",
            todo=f"give the parameter tracking_uri, or {TRACKING_VARIABLE} from a Kubernetes secret",
        )
    return address


def _open_progress(environment: Mapping[str, str], record: RunRecord, task: str, step: str) -> Progress:
    folder = environment.get(PROGRESS_VARIABLE)
    progress: Progress
    if folder:
        progress = ProgressFile(Path(folder) / f"{task}.json", step)
    elif _POD_VARIABLE in environment:
        progress = StepProgress(record, task, step)
    else:
        return ignore_progress
    progress(0, 0)
    return progress
