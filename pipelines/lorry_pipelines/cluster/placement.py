"""One way to place every step of the graph, the one that reports at the exit as well.

Nothing here is seen by a local run: Kubeflow's local runners ignore it.
"""

import json
from typing import Any

from kfp import kubernetes

from lorry_components.processors import CPU_REQUEST_VARIABLE
from lorry_components.steps.runtime.step_context import TRAIN_JOB_VARIABLE
from lorry_pipelines.cluster.base_mounts import BASE_STEPS
from lorry_pipelines.cluster.profile import ClusterProfile, StepProfile, TrainerProfile
from lorry_pipelines.cluster.train_job_placement import place_nodes
from lorry_registry.tasks.task_spec import ResourcesSpec, Toleration
from lorry_registry.text.sizes import add_quantities

_PART_OF, _STEP = "app.kubernetes.io/part-of", "lorry/step"
# By how many seconds the step that waits for nodes may last longer than they.
_MARGIN_SECONDS = 1800
# They read what other steps wrote, take seconds, and wait for nothing that a pause would bring back.
_JUDGING_STEPS = ("gate", "report")
_QUEUE, _PRIORITY = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"


def place_step(task: Any, step: str, profile: ClusterProfile, resources: ResourcesSpec) -> None:
    """Apply a cluster's profile, and the resources that a task asks for, to a step.

    Args:
        task: The step in the graph, a ``kfp.dsl.PipelineTask``.
        step: The step's name.
        profile: The cluster's profile.
        resources: The resources of the tasks that the step belongs to. Only fine-tuning and evaluation use
            them: the former all accelerators, the latter one.
    """
    if step == "finetune" and resources.nodes > 1 and profile.trainer is not None:
        _place_waiting_step(task, profile, profile.trainer, resources)
        return
    own = profile.find_step(step)
    count = {"finetune": resources.count, "evaluate": min(resources.count, 1)}.get(step, 0)
    _set_identity(task, step, profile)
    _set_environment(task, profile)
    task.set_env_variable(CPU_REQUEST_VARIABLE, f"{own.cpus:g}")
    _set_volumes(task, step, profile)
    _set_limits(task, own, step, resources, shared=profile.accelerators.shared_memory if count else None)
    _set_retries(task, step, profile)
    kubernetes.set_timeout(task, own.timeout_seconds)
    selector, tolerations = dict(profile.node_selector), list(profile.tolerations)
    if step in ("finetune", "evaluate"):
        selector |= resources.node_selector
        tolerations += resources.tolerations
    if count:
        task.set_accelerator_type(resources.accelerator).set_accelerator_limit(count)
        selector = profile.accelerators.node_selector | selector
        tolerations += profile.accelerators.tolerations
    _set_nodes(task, selector, tolerations)


def _place_waiting_step(
    task: Any, profile: ClusterProfile, trainer: TrainerProfile, resources: ResourcesSpec
) -> None:
    """Place a step that asks for several nodes, and waits for them on a small one."""
    _set_identity(task, "finetune", profile)
    _set_environment(task, profile)
    _set_volumes(task, "finetune", profile)
    task.set_cpu_request(trainer.cpu)
    task.set_memory_request(trainer.memory).set_memory_limit(trainer.memory)
    _set_retries(task, "finetune", profile)
    timeout = profile.find_step("finetune").timeout_seconds
    # The job ends first, so that its reason is known.
    kubernetes.set_timeout(task, timeout + _MARGIN_SECONDS)
    _set_nodes(task, dict(profile.node_selector), list(profile.tolerations))
    settings = place_nodes(
        profile,
        trainer,
        resources,
        image=task.container_spec.image,
        environment={
            CPU_REQUEST_VARIABLE: f"{profile.find_step('finetune').cpus:g}",
            **_list_environment(profile),
        },
        labels=_list_labels("finetune", profile),
        queue_labels=_list_queue_labels(profile),
    )
    task.set_env_variable(TRAIN_JOB_VARIABLE, settings.model_dump_json(exclude_defaults=True))


def _set_retries(task: Any, step: str, profile: ClusterProfile) -> None:
    # A verdict fails by design. Argo sits out the wait before it looks whether it may retry at all, so each
    # wait of a step that judges delays the end of a run whose outcome is known.
    if not profile.retry.count or step == "verdict":
        return
    waits = step not in _JUDGING_STEPS
    task.set_retry(
        profile.retry.count,
        backoff_duration=profile.retry.backoff if waits else "1s",
        backoff_factor=profile.retry.factor if waits else 1.0,
        backoff_max_duration=profile.retry.max_duration,
    )


def _set_identity(task: Any, step: str, profile: ClusterProfile) -> None:
    kubernetes.set_security_context(
        task, run_as_user=profile.user, run_as_group=profile.group, run_as_non_root=True
    )
    if profile.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(profile.image_pull_secrets))
    labels = _list_labels(step, profile) | _list_queue_labels(profile)
    for key, value in labels.items():
        kubernetes.add_pod_label(task, key, value)


def _list_labels(step: str, profile: ClusterProfile) -> dict[str, str]:
    return {_PART_OF: "lorry", _STEP: step.replace("_", "-"), **profile.labels}


def _list_queue_labels(profile: ClusterProfile) -> dict[str, str]:
    if profile.queue is None:
        return {}
    priority = profile.queue.priority_class
    return {_QUEUE: profile.queue.name, **({_PRIORITY: priority} if priority is not None else {})}


def _set_environment(task: Any, profile: ClusterProfile) -> None:
    for secret in profile.secrets:
        kubernetes.use_secret_as_env(task, secret.name, dict(secret.variables), optional=secret.optional)
    for name, value in _list_environment(profile).items():
        task.set_env_variable(name, value)


def _list_environment(profile: ClusterProfile) -> dict[str, str]:
    home = {"HOME": profile.home, "LORRY_HOME": f"{profile.home}/.lorry"}
    return home | profile.environment


def _set_volumes(task: Any, step: str, profile: ClusterProfile) -> None:
    # Only these may be written besides what Kubeflow's launcher mounts itself.
    kubernetes.empty_dir_mount(task, "tmp", "/tmp")  # noqa: S108
    kubernetes.empty_dir_mount(task, "home", profile.home)
    for volume in profile.volumes:
        kubernetes.mount_pvc(task, volume.claim, volume.path, volume.sub_path)
    # Kubeflow has no call for a read-only mount; the access mode of the claim decides.
    if profile.bases is not None and step in BASE_STEPS:
        kubernetes.mount_pvc(task, profile.bases.claim, profile.bases.path, profile.bases.sub_path)


def _set_limits(
    task: Any, own: StepProfile, step: str, resources: ResourcesSpec, *, shared: str | None
) -> None:
    task.set_cpu_request(own.cpu)
    if own.cpu_limit is not None:
        task.set_cpu_limit(own.cpu_limit)
    request, limit = own.memory, own.memory_limit
    if step in ("finetune", "evaluate"):
        # A task's plan is checked against this, so all of it is reserved.
        request = limit = resources.memory
    if shared is not None:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=shared)  # noqa: S108
        request = limit = add_quantities(resources.memory, shared)
    task.set_memory_request(request)
    if limit is not None:
        task.set_memory_limit(limit)


def _set_nodes(task: Any, selector: dict[str, str], tolerations: list[Toleration]) -> None:
    for key, value in selector.items():
        kubernetes.add_node_selector(task, label_key=key, label_value=value)
    for toleration in dict.fromkeys(
        toleration.model_dump_json(exclude_none=True) for toleration in tolerations
    ):
        kubernetes.add_toleration(task, **json.loads(toleration))
