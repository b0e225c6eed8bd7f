"""TrainJobs of Kubeflow Trainer, made and watched over Kubernetes' API.

Trainer's own SDK does not do here: it knows no variables from secrets, and its watching keeps no reason of a
failure, ends after ten minutes, and follows a log until the connection is cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from lorry_components.steps.finetune.multi_node.train_job_settings import TrainJobSettings
from lorry_components.steps.runtime.kubernetes_api import (
    KubernetesApi,
    is_conflict,
)
from lorry_registry.errors import ClusterError

CONTAINER = "node"
"""The container and the replicated job in which Trainer's runtimes train."""

_MANAGER = "lorry/finetune"
_GROUP = "/apis/trainer.kubeflow.org/v1alpha1"
_JOBSET, _ROLE = "jobset.sigs.k8s.io/jobset-name", "jobset.sigs.k8s.io/replicatedjob-name"
_INDEX = "batch.kubernetes.io/job-completion-index"
_MAX_LOG_BYTES = 1 << 20
_LAST_LINES = 20
# What a container waits for in vain until someone corrects it.
_STUCK = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError")


@dataclass(frozen=True, slots=True)
class NodePod:
    """The pod of a node, the latest one if it was replaced.

    Attributes:
        name: Its name.
        number: The node's number.
        phase: ``Pending``, ``Running``, ``Succeeded`` or ``Failed``.
        trouble: Why it does not run, or why it ended last; empty if all is well.
        is_stuck: Whether it cannot start, for a reason other than a lack of nodes.
    """

    name: str
    number: int
    phase: str
    trouble: str = ""
    is_stuck: bool = False


@dataclass(frozen=True, slots=True)
class TrainJob:
    """A TrainJob as the cluster shows it.

    Attributes:
        name: Its name.
        status: ``Complete``, ``Failed``, ``Suspended``, or empty while it goes on.
        reason: Why it has this status, in the cluster's words.
    """

    name: str
    status: str = ""
    reason: str = ""


class TrainJobs:
    """The TrainJobs of a namespace.

    Args:
        api: The cluster.
    """

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api
        self._group = f"{_GROUP}/namespaces/{quote(api.namespace)}"
        self._jobs = f"{self._group}/trainjobs"
        self._core = f"/api/v1/namespaces/{quote(api.namespace)}"

    def create(self, name: str, settings: TrainJobSettings, command: list[str]) -> None:
        """Create a job, unless it is there: it may be, when an answer was lost or a step is run again.

        Args:
            name: Its name.
            settings: How its nodes are placed.
            command: What each of them runs.

        Raises:
            ClusterError: It is refused, there is no such runtime or no Trainer, or the server stays away.
        """
        job = build_job(name, self._find_runtime(settings.runtime), settings, command)
        try:
            made = self._api.create(self._jobs, job)
        except ClusterError as error:
            if is_conflict(error):
                return
            raise
        if made is None:
            raise _refuse_runtime("Kubeflow Trainer is not there", self._api.host)

    def _find_runtime(self, name: str) -> dict[str, str]:
        """Return the reference of a runtime; the namespace's own comes before the cluster's.

        Raises:
            ClusterError: There is none of this name, or it is not for torch.
        """
        places = {
            "TrainingRuntime": f"{self._group}/trainingruntimes/{quote(name)}",
            "ClusterTrainingRuntime": f"{_GROUP}/clustertrainingruntimes/{quote(name)}",
        }
        for kind, place in places.items():
            found = self._api.find(place)
            if found is None:
                continue
            if "torch" not in found.get("spec", {}).get("mlPolicy", {}):
                raise _refuse_runtime(f"the {kind} {name} is not for torch", self._api.host)
            return {"apiGroup": "trainer.kubeflow.org", "kind": kind, "name": name}
        raise _refuse_runtime(
            f"the runtime {name} is not there, or Kubeflow Trainer itself is not", self._api.host
        )

    def find(self, name: str) -> TrainJob | None:
        """Return a job; None: there is none.

        Raises:
            ClusterError: The server refuses, or stays away.
        """
        found = self._api.find(f"{self._jobs}/{name}")
        if found is None:
            return None
        for condition in found.get("status", {}).get("conditions") or ():
            if condition.get("status") == "True" and condition.get("type") in (
                "Complete",
                "Failed",
                "Suspended",
            ):
                reason = ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
                return TrainJob(name, condition["type"], reason)
        return TrainJob(name)

    def delete(self, name: str) -> None:
        """Delete a job with its pods.

        Raises:
            ClusterError: The server refuses, or stays away.
        """
        self._api.delete(f"{self._jobs}/{name}")

    def list_pods(self, name: str) -> list[NodePod]:
        """Return the latest pod of each node, by the nodes' numbers.

        Raises:
            ClusterError: The server refuses, or stays away.
        """
        found = self._api.read(f"{self._core}/pods", labelSelector=f"{_JOBSET}={name},{_ROLE}={CONTAINER}")
        items = sorted(found.get("items") or (), key=lambda pod: pod["metadata"]["creationTimestamp"])
        latest = {_read_number(pod): pod for pod in items}
        return [_describe_pod(number, pod) for number, pod in sorted(latest.items())]

    def list_warnings(self, name: str) -> list[str]:
        """Return why the cluster does not start pods, or not yet: a quota, no node that fits.

        Raises:
            ClusterError: The server refuses, or stays away.
        """
        found = self._api.read(f"{self._core}/events", fieldSelector="type=Warning")
        reasons = [
            f"{event.get('reason', '')}: {event.get('message', '')}"
            for event in found.get("items") or ()
            if _belongs(event.get("involvedObject", {}).get("name", ""), name)
        ]
        return list(dict.fromkeys(reasons))

    def read_log(self, pod: str, since: str, seconds: int) -> list[tuple[str, str]]:
        """Return the lines of a pod's log with the times at which they were written; empty if there is none.

        Args:
            pod: The pod.
            since: The time of the last line that is known; empty: all lines are new.
            seconds: How far back to look.

        Raises:
            ClusterError: The server refuses, or stays away.
        """
        text = self._api.read_text(
            f"{self._core}/pods/{pod}/log",
            container=CONTAINER,
            timestamps="true",
            sinceSeconds=str(seconds),
            limitBytes=str(_MAX_LOG_BYTES),
        )
        pairs = (line.partition(" ") for line in text.splitlines())
        return [(at, line) for at, _, line in pairs if at > since]

    def read_last_lines(self, pod: str) -> str:
        """Return the end of a pod's log, or of the container before; empty if there is none."""
        for previous in ("false", "true"):
            try:
                text = self._api.read_text(
                    f"{self._core}/pods/{pod}/log",
                    container=CONTAINER,
                    tailLines=str(_LAST_LINES),
                    previous=previous,
                )
            except ClusterError:
                # The container never started, or its log is gone with its node.
                continue
            if text:
                return text
        return ""


def build_job(
    name: str, runtime: Mapping[str, str], settings: TrainJobSettings, command: Sequence[str]
) -> dict[str, Any]:
    """Return the document of a job.

    Trainer's admission refuses environment variables of its container in a patch, and its SDK knows plain
    values only: those from secrets stand in ``spec.trainer``, where the API takes them.
    """
    variables: list[dict[str, Any]] = [
        {"name": variable, "value": value} for variable, value in settings.environment.items()
    ]
    variables += [
        {
            "name": secret.variable,
            "valueFrom": {
                "secretKeyRef": {"name": secret.name, "key": secret.key, "optional": secret.optional}
            },
        }
        for secret in settings.secrets
    ]
    node = {
        "name": CONTAINER,
        "template": {
            "spec": {"template": {"metadata": {"labels": settings.labels}, "spec": _patch_pods(settings)}}
        },
    }
    patch = {"template": {"spec": {"replicatedJobs": [node]}}}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name, "labels": {**settings.labels, **settings.job_labels}},
        "spec": {
            "runtimeRef": dict(runtime),
            "activeDeadlineSeconds": settings.deadline_seconds,
            "trainer": {
                "image": settings.image,
                "command": list(command),
                "numNodes": settings.nodes,
                "resourcesPerNode": {"requests": settings.resources, "limits": settings.resources},
                "env": variables,
            },
            "runtimePatches": [{"manager": _MANAGER, "trainingRuntimeSpec": patch}],
        },
    }


def _patch_pods(settings: TrainJobSettings) -> dict[str, Any]:
    folders: list[tuple[str, str, dict[str, str]]] = [
        ("tmp", "/tmp", {}),  # noqa: S108 - a path in a pod
        ("home", settings.home, {}),
    ]
    if settings.shared_memory is not None:
        size = {"medium": "Memory", "sizeLimit": settings.shared_memory}
        folders.append(("shm", "/dev/shm", size))  # noqa: S108 - likewise
    volumes: list[dict[str, Any]] = [{"name": name, "emptyDir": form} for name, _, form in folders]
    mounts: list[dict[str, Any]] = [{"name": name, "mountPath": path} for name, path, _ in folders]
    for number, volume in enumerate(settings.volumes):
        claim = {"claimName": volume.claim, "readOnly": volume.read_only}
        volumes.append({"name": f"claim-{number}", "persistentVolumeClaim": claim})
        mount = {"name": f"claim-{number}", "mountPath": volume.path, "readOnly": volume.read_only}
        mounts.append(mount | ({"subPath": volume.sub_path} if volume.sub_path else {}))
    container = {
        "name": CONTAINER,
        "volumeMounts": mounts,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    chosen = {
        "serviceAccountName": settings.service_account,
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
        "nodeSelector": settings.node_selector,
        "tolerations": [toleration.model_dump(exclude_none=True) for toleration in settings.tolerations],
    }
    return {
        "volumes": volumes,
        "containers": [container],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.user,
            "runAsGroup": settings.group,
            "fsGroup": settings.group,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **{key: value for key, value in chosen.items() if value},
    }


def _refuse_runtime(what: str, host: str) -> ClusterError:
    return ClusterError(
        what,
        where=host,
        todo="install Trainer 2.2 or newer with its runtimes, and name one for torch in the profile, "
        "trainer: {runtime: torch-distributed}",
    )


def _read_number(pod: Mapping[str, Any]) -> int:
    return int(pod["metadata"].get("labels", {}).get(_INDEX, 0))


def _belongs(owner: str, job: str) -> bool:
    # The JobSet has the job's name; its Jobs and pods have that with a suffix.
    return owner == job or owner.startswith(f"{job}-{CONTAINER}-")


def _describe_pod(number: int, pod: Mapping[str, Any]) -> NodePod:
    status = pod.get("status", {})
    containers = status.get("containerStatuses") or [{}]
    own = next((one for one in containers if one.get("name") == CONTAINER), containers[0])
    waiting = own.get("state", {}).get("waiting") or {}
    ended = own.get("state", {}).get("terminated") or own.get("lastState", {}).get("terminated") or {}
    is_stuck = waiting.get("reason") in _STUCK
    parts = []
    if status.get("reason"):
        # A node's own reasons, such as an eviction.
        parts.append(_join(status["reason"], status.get("message")))
    parts += [
        _join(condition.get("reason"), condition.get("message"))
        for condition in status.get("conditions") or ()
        if (condition.get("type"), condition.get("status")) == ("DisruptionTarget", "True")
    ]
    if ended and ended.get("exitCode", 0) != 0:
        parts.append(f"{ended.get('reason') or 'Error'}, exit code {ended['exitCode']}")
    if is_stuck:
        parts.append(_join(waiting["reason"], waiting.get("message")))
    return NodePod(
        name=pod["metadata"]["name"],
        number=number,
        phase=status.get("phase", "Pending"),
        trouble="; ".join(dict.fromkeys(filter(None, parts))),
        is_stuck=is_stuck,
    )


def _join(reason: str | None, message: str | None) -> str:
    return ": ".join(filter(None, (reason, message)))
