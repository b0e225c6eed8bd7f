"""The edge of a step: from a component's strings to the objects that the plain functions take.

The only place below the command line that reads the environment: a container is configured by it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lorry_components.process_setup import ease_garbage_collection, quiet_libraries
from lorry_components.progress import Progress, ProgressFile, ignore_progress
from lorry_components.steps.runtime.outcomes import RunRecord
from lorry_registry.errors import TrackingError
from lorry_registry.mlflow_index import MlflowIndex
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings
from lorry_registry.stores import Store, open_store
from lorry_registry.task_spec import TaskSpec

# Where a local run wants to see progress files; unset on a cluster.
PROGRESS_VARIABLE = "LORRY_PROGRESS"
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
# Set by the Kubeflow backend's MLflow plugin.
INJECTED_RUN_VARIABLE = "MLFLOW_RUN_ID"


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a step works with.

    Attributes:
        spec: The task.
        record: Where its outcome is kept.
        registry: Adapters and ledgers.
        index: MLflow.
        progress: Told how far the step is.
        injected_run: The MLflow run that the backend opened for this step, if it did.
    """

    spec: TaskSpec
    record: RunRecord
    registry: Registry
    index: MlflowIndex
    progress: Progress
    injected_run: str | None

    @classmethod
    def open(cls, step: str, *, task: str, run: str, store: str, tracking_uri: str) -> Self:
        """Read a component's arguments and the environment.

        Args:
            step: The step's name.
            task: The task as JSON.
            run: The run's id.
            store: The store's address.
            tracking_uri: MLflow's; empty: the environment's.

        Raises:
            TrackingError: There is no address of MLflow.
        """
        quiet_libraries()
        ease_garbage_collection()
        environment = os.environ
        settings = Settings.load(environment, Path.cwd())
        spec = TaskSpec.model_validate_json(task)
        opened = open_store(store)
        return cls(
            spec=spec,
            record=RunRecord(opened, run),
            registry=Registry(opened, settings.cache / "adapters"),
            index=MlflowIndex(choose_tracking_uri(tracking_uri, environment)),
            progress=_open_progress(environment, spec.name, step),
            injected_run=environment.get(INJECTED_RUN_VARIABLE) or None,
        )

    def find_mlflow_run(self) -> str | None:
        """Return the MLflow run that fine-tuning opened for this task."""
        for outcome in self.record.read(self.spec.name):
            found = outcome.details.get("mlflow_run_id")
            if isinstance(found, str):
                return found
        return None

    @property
    def store(self) -> Store:
        """The store."""
        return self.registry.store


def choose_tracking_uri(given: str, environment: Mapping[str, str]) -> str:
    """Return the address of MLflow: a component's argument, or the environment's where that is empty.

    An address with a password is no argument: arguments are kept with a run, for all to read.

    Raises:
        TrackingError: There is none.
    """
    found = given or environment.get(TRACKING_VARIABLE, "")
    if not found:
        raise TrackingError(
            "there is no address of MLflow",
            where="tracking_uri",
            todo=f"give the parameter tracking_uri, or {TRACKING_VARIABLE} from a Kubernetes secret",
        )
    return found


def _open_progress(environment: Mapping[str, str], task: str, step: str) -> Progress:
    folder = environment.get(PROGRESS_VARIABLE)
    if not folder:
        return ignore_progress
    progress = ProgressFile(Path(folder) / f"{task}.json", step)
    progress(0, 0)
    return progress
