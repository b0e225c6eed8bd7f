"""The profile of a cluster: one YAML file that says how every step of a pipeline is placed on it."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from lorry_components.steps.runtime.outcomes import STEPS
from lorry_registry.errors import InvalidTaskError
from lorry_registry.tasks.task_document import load_document
from lorry_registry.tasks.task_loading import describe_fault
from lorry_registry.tasks.task_section import Section
from lorry_registry.tasks.task_spec import MEMORY_QUANTITY, Toleration
from lorry_registry.text.sizes import parse_size

CLUSTER_STEPS = (*STEPS, "verdict", "report")
"""The steps of the compiled graph, the two that judge and report a whole run included."""

_CPU = r"^(\d+m|\d+(\.\d+)?)$"
_NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_DURATION = r"^\d+s$"

Cpu = Annotated[str, Field(pattern=_CPU)]
Memory = Annotated[str, Field(pattern=MEMORY_QUANTITY)]
ObjectName = Annotated[str, Field(pattern=_NAME)]
Variable = Annotated[str, Field(pattern=_VARIABLE)]
Duration = Annotated[str, Field(pattern=_DURATION)]


def _count_cpus(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


class StepProfile(Section):
    """What one step asks for.

    Attributes:
        cpu: Processors that are reserved for it, in Kubernetes' notation.
        cpu_limit: Processors that it may use at most; None: no limit.
        memory: Memory that is reserved for it.
        memory_limit: Memory beyond which it is killed. A fine-tuning or evaluation has that of its task's
            ``resources`` instead.
        timeout_seconds: How long each attempt may take: Kubeflow makes it the deadline of the pod.
    """

    cpu: Cpu
    cpu_limit: Cpu | None = None
    memory: Memory
    memory_limit: Memory | None = None
    timeout_seconds: Annotated[int, Field(ge=60)]

    @property
    def cpus(self) -> float:
        """Processors that are reserved for it."""
        return _count_cpus(self.cpu)

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.memory_limit is not None and parse_size(self.memory_limit) < parse_size(self.memory):
            raise ValueError("memory_limit is less than memory")
        if self.cpu_limit is not None and _count_cpus(self.cpu_limit) < _count_cpus(self.cpu):
            raise ValueError("cpu_limit is less than cpu")
        return self


class RetryProfile(Section):
    """How often a step whose pod was lost is tried again.

    Attributes:
        count: How often at most; 0: never.
        backoff: The wait before the first retry, in seconds, such as ``60s``.
        factor: By how much each wait is longer than the one before.
        max_duration: The longest time from the first attempt to the end of the last. Kubeflow makes it the
            deadline of a retried pod and would take an hour by default, so it has to cover a whole training.
    """

    count: Annotated[int, Field(ge=0, le=20)] = 3
    backoff: Duration = "60s"
    factor: Annotated[float, Field(ge=1, le=10)] = 2.0
    max_duration: Duration = "604800s"


class SecretVariables(Section):
    """Environment variables of every step whose values are a Kubernetes secret's.

    Attributes:
        name: The secret.
        variables: The variable of each of its keys.
        optional: Whether a step starts without the secret.
    """

    name: ObjectName
    variables: dict[str, Variable] = Field(min_length=1)
    optional: bool = False


class VolumeProfile(Section):
    """A persistent volume claim that every step sees.

    Attributes:
        claim: The claim's name.
        path: Where it is mounted.
        sub_path: The folder of the volume that is mounted; empty: all of it.
    """

    claim: ObjectName
    path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/-]+$")]
    sub_path: str = ""


class BasesProfile(Section):
    """The persistent volume claim that holds base models, for the steps that load one.

    Attributes:
        claim: The claim's name.
        path: Where it is mounted, which is what these steps have as ``LORRY_BASES``.
        sub_path: The folder of the volume that is mounted; empty: all of it.
    """

    claim: ObjectName
    path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/-]+$")] = "/bases"
    sub_path: str = ""


class ImagesProfile(Section):
    """The images of the steps, each named by its digest: ``NAME@sha256:DIGEST``.

    Attributes:
        train: The image in which every step can run.
        slim: A smaller one, for the steps that load no model; None: these run in ``train``, too.
    """

    train: Annotated[str, Field(min_length=1)]
    slim: Annotated[str, Field(min_length=1)] | None = None


class QueueProfile(Section):
    """Where Kueue admits the pods.

    Attributes:
        name: The LocalQueue.
        priority_class: Kueue's WorkloadPriorityClass; None: the cluster's default.
    """

    name: ObjectName
    priority_class: ObjectName | None = None


class AcceleratorProfile(Section):
    """How a step with accelerators is placed, besides what its task says.

    Attributes:
        node_selector: Labels that its node must have. A task's own come on top.
        tolerations: Taints that it tolerates. A task's own come on top.
        shared_memory: The size of /dev/shm, which data loaders and NCCL use. It lies in memory and counts
            against the limit, so it is added to that.
    """

    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    shared_memory: Memory = "8Gi"


Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PriceTable(Section):
    """What an hour costs, as your provider or your accounts say; none has a default.

    Attributes:
        currency: The currency of all prices.
        cpu: Of a processor.
        memory: Of a GiB of memory.
        accelerators: Of an accelerator, by its resource name, ``nvidia.com/gpu``, or by the value of the
            node's label that chooses its kind, such as ``nvidia-l4``, which counts for more.
    """

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    cpu: Price = 0.0
    memory: Price = 0.0
    accelerators: dict[str, Price] = {}


class TrainerProfile(Section):
    """Kubeflow Trainer, for tasks that are trained on several nodes.

    Attributes:
        runtime: The TrainingRuntime of the namespace, or the ClusterTrainingRuntime; one for torch.
        service_account: The account of the nodes; None: the namespace's default. It needs no rights.
        start_seconds: How long a job may wait until all its nodes run.
        cpu: Processors that are reserved for the step that waits.
        memory: The memory of the step that waits, which computes the fingerprint of the base.
    """

    runtime: ObjectName = "torch-distributed"
    service_account: ObjectName | None = None
    start_seconds: Annotated[int, Field(ge=60)] = 86_400
    cpu: Cpu = "250m"
    memory: Memory = "2Gi"


_DAY, _WEEK = 86_400, 604_800
_LIGHT = StepProfile(cpu="250m", cpu_limit="1", memory="512Mi", memory_limit="1Gi", timeout_seconds=3600)
_DEFAULTS = {
    "prepare_data": StepProfile(
        cpu="1", cpu_limit="2", memory="2Gi", memory_limit="4Gi", timeout_seconds=6 * 3600
    ),
    "finetune": StepProfile(cpu="2", memory="4Gi", timeout_seconds=3 * _DAY),
    "evaluate": StepProfile(cpu="2", memory="4Gi", timeout_seconds=_DAY),
    "gate": _LIGHT,
    # It loads the adapter on its base and compares outputs.
    "register": StepProfile(cpu="1", cpu_limit="2", memory="2Gi", memory_limit="8Gi", timeout_seconds=3600),
    "verdict": _LIGHT,
    "report": _LIGHT,
}


class ClusterProfile(Section):
    """How the steps of a pipeline run on one cluster. Every field has a default; an empty file is valid.

    Attributes:
        images: The images of the steps; None: those of the settings of the user who compiles or submits.
        steps: What each step asks for; steps that are not named have the defaults.
        accelerators: How steps with accelerators are placed.
        retry: How often a step is tried again when its pod is lost.
        secrets: Environment variables from Kubernetes secrets: credentials of S3 and MLflow, a hub's token.
        environment: Further environment variables of every step; no secrets, for anyone may read them.
        volumes: Persistent volume claims that every step mounts.
        bases: The claim of the base models that tasks call by a logical name; None: there is none.
        image_pull_secrets: Secrets with which the image is pulled.
        trainer: Kubeflow Trainer; None: the cluster has none, and each task is trained on one node.
        prices: What an hour of what steps ask for costs; None: not known.
        queue: Kueue's queue; None: the cluster does not use Kueue.
        labels: Further labels of every pod.
        user: The user id that steps run as. It must not be 0.
        group: The group id that steps run as.
        home: A folder for this user, which is empty at the start of each step.
        node_selector: Labels that the nodes of all steps must have.
        tolerations: Taints that all steps tolerate.
        tasks_at_once: How many tasks a submission works on at once; each loop, which is the tasks with the
            same resources, has this limit for itself.
        tasks_per_run: How many tasks one run has at most. Argo keeps the state of all nodes of a run in one
            object of 1 MiB compressed; tests/benchmarks/bench_workflow_size.py prints what it takes.
        ttl_seconds: How long a finished run's pods and workflow are kept.
        deadline_seconds: How long a run may take altogether.
    """

    images: ImagesProfile | None = None
    steps: dict[str, StepProfile] = {}
    accelerators: AcceleratorProfile = AcceleratorProfile()
    retry: RetryProfile = RetryProfile()
    secrets: tuple[SecretVariables, ...] = ()
    environment: dict[Variable, str] = {}
    volumes: tuple[VolumeProfile, ...] = ()
    bases: BasesProfile | None = None
    image_pull_secrets: tuple[ObjectName, ...] = ()
    trainer: TrainerProfile | None = None
    prices: PriceTable | None = None
    queue: QueueProfile | None = None
    labels: dict[str, str] = {}
    user: Annotated[int, Field(ge=1)] = 10001
    group: Annotated[int, Field(ge=1)] = 10001
    home: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/-]+$")] = "/home/lorry"
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    tasks_at_once: Annotated[int, Field(ge=1)] = 20
    tasks_per_run: Annotated[int, Field(ge=1)] = 25
    ttl_seconds: Annotated[int, Field(ge=0)] = 7 * _DAY
    deadline_seconds: Annotated[int, Field(ge=60)] = _WEEK

    @model_validator(mode="before")
    @classmethod
    def _fill_steps(cls, document: object) -> object:
        # A profile names what differs: a step's other fields keep their defaults.
        if not isinstance(document, dict) or not isinstance(document.get("steps"), dict):
            return document
        filled = {
            name: _DEFAULTS.get(name, _LIGHT).model_dump(exclude_none=True) | step
            if isinstance(step, dict)
            else step
            for name, step in document["steps"].items()
        }
        return document | {"steps": filled}

    @field_validator("steps")
    @classmethod
    def _check_steps(cls, steps: dict[str, StepProfile]) -> dict[str, StepProfile]:
        unknown = sorted(set(steps) - set(CLUSTER_STEPS))
        if unknown:
            raise ValueError(
                f"there is no step {', '.join(unknown)}; the steps are {', '.join(CLUSTER_STEPS)}"
            )
        return steps

    @model_validator(mode="after")
    def _check_mounts(self) -> Self:
        paths = [volume.path for volume in self.volumes]
        if self.bases is not None:
            paths.append(self.bases.path)
        for path in paths:
            if paths.count(path) > 1:
                raise ValueError(f"two claims are mounted at {path}")
        return self

    def find_step(self, step: str) -> StepProfile:
        """Return what a step asks for."""
        return self.steps.get(step, _DEFAULTS[step])


def load_profile(path: Path | None) -> ClusterProfile:
    """Read a profile; None: modest defaults for each step.

    Raises:
        InvalidTaskError: The file is missing, not YAML, or has faults; all are listed.
    """
    if path is None:
        return ClusterProfile()
    document = load_document(path)
    try:
        return ClusterProfile.model_validate(document.content)
    except ValidationError as error:
        faults = [describe_fault(detail) for detail in error.errors()]
        raise InvalidTaskError(str(path), faults, todo="correct the cluster profile") from error
