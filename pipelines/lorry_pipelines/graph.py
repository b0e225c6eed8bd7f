"""The graph: five steps for each task, all tasks side by side, and an exit step that always reports.

The graph has a single condition: a task that is up to date, or whose data cannot be used, does not ask for a
GPU. Each later step checks by itself whether an earlier one failed, and ends at once: a failed task neither
stops its siblings nor needs a condition at every step.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kfp import dsl, kubernetes

from lorry_components.steps.evaluate.component import evaluate
from lorry_components.steps.finetune.component import finetune
from lorry_components.steps.gate.component import gate
from lorry_components.steps.prepare_data.component import prepare_data
from lorry_components.steps.register.component import register
from lorry_components.steps.report.component import report
from lorry_components.steps.runtime.outcomes import PROCEED
from lorry_registry.task_spec import ResourcesSpec, TaskSpec

PIPELINE_NAME = "lorry"
_DESCRIPTION = "Train, judge and register one adapter for each task, on frozen bases."


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """Tasks whose fine-tuning runs on nodes with the same resources.

    Attributes:
        resources: The resources of the node.
        tasks: The tasks, each as JSON.
    """

    resources: ResourcesSpec
    tasks: tuple[str, ...]


def group_tasks(specs: Sequence[TaskSpec]) -> list[TaskGroup]:
    """Group tasks by the resources that they ask for, since a node is chosen when the graph is compiled."""
    groups: dict[str, list[TaskSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.resources.model_dump_json(), []).append(spec)
    return [
        TaskGroup(members[0].resources, tuple(member.model_dump_json() for member in members))
        for members in groups.values()
    ]


def build_pipeline(
    groups: Sequence[TaskGroup], *, image: str, store: str, tracking_uri: str, checkpoints: str = ""
) -> Any:
    """Return the graph as a Kubeflow pipeline.

    With one group the tasks are the parameter ``tasks`` and can be replaced when a run is started; with
    several they are part of the graph.

    Args:
        groups: The tasks; one group without tasks makes a graph whose tasks are given at its start.
        image: The container image of all steps.
        store: The default address of the store.
        tracking_uri: The default address of MLflow.
        checkpoints: Where checkpoints are kept by default.
    """
    everything = [task for group in groups for task in group.tasks]

    @dsl.pipeline(name=PIPELINE_NAME, description=_DESCRIPTION)
    def lorry(
        tasks: list = everything,
        run: str = dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        store: str = store,
        tracking_uri: str = tracking_uri,
        checkpoints: str = checkpoints,
        force: bool = False,
    ) -> None:
        places = {"run": run, "store": store, "tracking_uri": tracking_uri}
        finish = report(tasks=tasks, **places)
        _configure(finish, image)
        with dsl.ExitHandler(finish, name="tasks"):
            for group in groups:
                with dsl.ParallelFor(tasks if len(groups) == 1 else list(group.tasks)) as task:
                    _add_steps(
                        task, group.resources, places, checkpoints=checkpoints, force=force, image=image
                    )

    return lorry


def _add_steps(
    task: Any, resources: ResourcesSpec, places: dict[str, Any], *, checkpoints: Any, force: Any, image: str
) -> None:
    prepared = prepare_data(task=task, force=force, **places)
    _configure(prepared, image)
    data = prepared.outputs["data"]
    with dsl.If(prepared.outputs["Output"] == PROCEED, name="is-stale"):
        trained = finetune(task=task, data=data, checkpoints=checkpoints, force=force, **places)
        _configure(trained, image)
        _place(trained, resources)
        candidate = trained.outputs["candidate"]
        evaluated = evaluate(task=task, data=data, candidate=candidate, **places)
        _configure(evaluated, image)
        judged = gate(task=task, evaluation=evaluated.outputs["evaluation"], **places)
        _configure(judged, image)
        registered = register(
            task=task,
            checkpoints=checkpoints,
            data=data,
            candidate=candidate,
            evaluation=evaluated.outputs["evaluation"],
            decision=judged.outputs["decision"],
            **places,
        )
        _configure(registered, image)


def _configure(task: Any, image: str) -> None:
    task.set_container_image(image)
    # Whether there is anything to do depends on the ledger, which the backend's cache does not see.
    task.set_caching_options(False)


def _place(task: Any, resources: ResourcesSpec) -> None:
    """Send fine-tuning to a node with the resources that its tasks ask for."""
    task.set_memory_limit(resources.memory)
    if resources.count:
        task.set_accelerator_type(resources.accelerator).set_accelerator_limit(resources.count)
        # PyTorch's data loaders and NCCL share memory between processes; the default of 64 MiB breaks them.
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit="8Gi")  # noqa: S108
    for key, value in resources.node_selector.items():
        kubernetes.add_node_selector(task, label_key=key, label_value=value)
    for toleration in resources.tolerations:
        kubernetes.add_toleration(task, **json.loads(toleration.model_dump_json(exclude_none=True)))
