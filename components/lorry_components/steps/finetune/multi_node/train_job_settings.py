"""Settings of the cluster for a training on several nodes: written when a graph is compiled.

It travels as one environment variable of the step. It names secrets, and holds none.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorry_components.steps.runtime.step_context import TRAIN_JOB_VARIABLE
from lorry_registry.errors import UsageError
from lorry_registry.tasks.task_spec import Toleration


class JobVolume(BaseModel):
    """A persistent volume claim that each node mounts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: str
    path: str
    sub_path: str = ""
    read_only: bool = False


class JobSecret(BaseModel):
    """An environment variable whose value is a Kubernetes secret's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variable: str
    name: str
    key: str
    optional: bool = False


class TrainJobSettings(BaseModel):
    """How the nodes of a training are placed.

    Attributes:
        runtime: The TrainingRuntime or ClusterTrainingRuntime.
        image: The image of the nodes.
        nodes: How many there are.
        resources: What each of them asks for, by Kubernetes' names, such as ``nvidia.com/gpu``.
        shared_memory: The size of /dev/shm; None: the container's own.
        environment: Environment variables of each node.
        secrets: Environment variables from secrets.
        volumes: Claims that each node mounts.
        node_selector: Labels that nodes must have.
        tolerations: Taints that are tolerated.
        labels: Labels of the job and of its pods.
        job_labels: Further labels of the job alone, such as Kueue's queue.
        user: The user id.
        group: The group id.
        home: The home folder, empty at the start.
        service_account: The account of the nodes; None: the namespace's default.
        image_pull_secrets: Secrets with which the image is pulled.
        deadline_seconds: How long the job may take.
        start_seconds: How long it may wait until all its nodes run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: str
    image: str
    nodes: Annotated[int, Field(ge=2)]
    resources: dict[str, str]
    shared_memory: str | None = None
    environment: dict[str, str] = {}
    secrets: tuple[JobSecret, ...] = ()
    volumes: tuple[JobVolume, ...] = ()
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    labels: dict[str, str] = {}
    job_labels: dict[str, str] = {}
    user: int
    group: int
    home: str
    service_account: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    deadline_seconds: int
    start_seconds: int


def read_train_job_settings(text: str) -> TrainJobSettings:
    """Read what a compiled graph says.

    Raises:
        UsageError: It is not such a document.
    """
    try:
        return TrainJobSettings.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(
            f"it does not say how nodes are placed: {error.error_count()} faults",
            where=TRAIN_JOB_VARIABLE,
            todo="compile the pipeline again with the version that the image has",
        ) from error
