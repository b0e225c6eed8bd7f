"""The placement of a training's nodes, for the step that asks Kubeflow Trainer for them."""

from lorry_components.steps.finetune.multi_node.train_job_settings import (
    JobSecret,
    JobVolume,
    TrainJobSettings,
)
from lorry_pipelines.cluster.profile import ClusterProfile, TrainerProfile
from lorry_registry.tasks.task_spec import ResourcesSpec
from lorry_registry.text.sizes import add_quantities


def place_nodes(
    profile: ClusterProfile,
    trainer: TrainerProfile,
    resources: ResourcesSpec,
    *,
    image: str,
    environment: dict[str, str],
    labels: dict[str, str],
    queue_labels: dict[str, str],
) -> TrainJobSettings:
    """Return what a job asks for: the same as a fine-tuning step on one node would, for each of its nodes.

    Args:
        profile: The cluster's profile.
        trainer: Its section on Kubeflow Trainer.
        resources: What the tasks ask for.
        image: The image of the nodes.
        environment: Environment variables of each node.
        labels: Labels of the job and of its pods.
        queue_labels: Labels by which Kueue admits the job as a whole.
    """
    own = profile.find_step("finetune")
    selector = profile.node_selector | resources.node_selector
    tolerations = [*profile.tolerations, *resources.tolerations]
    asked = {"cpu": own.cpu, "memory": resources.memory}
    shared = None
    if resources.count:
        shared = profile.accelerators.shared_memory
        asked["memory"] = add_quantities(resources.memory, shared)
        asked[resources.accelerator] = str(resources.count)
        selector = profile.accelerators.node_selector | selector
        tolerations += profile.accelerators.tolerations
    volumes = [
        JobVolume(claim=volume.claim, path=volume.path, sub_path=volume.sub_path)
        for volume in profile.volumes
    ]
    if profile.bases is not None:
        bases = profile.bases
        volumes.append(JobVolume(claim=bases.claim, path=bases.path, sub_path=bases.sub_path, read_only=True))
    return TrainJobSettings(
        runtime=trainer.runtime,
        image=image,
        nodes=resources.nodes,
        resources=asked,
        shared_memory=shared,
        environment=environment,
        secrets=tuple(
            JobSecret(variable=variable, name=secret.name, key=key, optional=secret.optional)
            for secret in profile.secrets
            for key, variable in secret.variables.items()
        ),
        volumes=tuple(volumes),
        node_selector=selector,
        tolerations=tuple(dict.fromkeys(tolerations)),
        labels=labels,
        job_labels=queue_labels,
        user=profile.user,
        group=profile.group,
        home=profile.home,
        service_account=trainer.service_account,
        image_pull_secrets=profile.image_pull_secrets,
        deadline_seconds=own.timeout_seconds,
        start_seconds=min(trainer.start_seconds, own.timeout_seconds),
    )
