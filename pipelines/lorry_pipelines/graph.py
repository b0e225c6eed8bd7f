"""The graph: five steps for each task, all tasks side by side, a verdict on them, and a report at every exit.

The loop over tasks has a single condition: a task that is up to date, or whose data cannot be used, does not
ask for a GPU. Each later step checks by itself whether an earlier one failed, and ends at once: a failed task
neither stops its siblings nor needs a condition at every step. The verdict fails if a task did, and the run
with it; the report is an exit step, whose own failure would not count.
"""

import json
from collections.abc import Callable, Sequence
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
from lorry_components.steps.verdict.component import verdict
from lorry_registry.task_references import refer_to_task
from lorry_registry.task_spec import ResourcesSpec, TaskSpec

PIPELINE_NAME = "lorry"
_DESCRIPTION = "Train, judge and register one adapter for each task, on frozen bases."


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """Tasks whose fine-tuning runs on nodes with the same resources.

    Attributes:
        resources: The resources of the node.
        tasks: References to the tasks.
    """

    resources: ResourcesSpec
    tasks: tuple[str, ...]


def group_tasks(specs: Sequence[TaskSpec]) -> list[TaskGroup]:
    """Group tasks by the resources that they ask for, since a node is chosen when the graph is compiled."""
    groups: dict[str, list[TaskSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.resources.model_dump_json(), []).append(spec)
    return [
        TaskGroup(members[0].resources, tuple(str(refer_to_task(member)) for member in members))
        for members in groups.values()
    ]


def build_pipeline(groups: Sequence[TaskGroup], *, image: str, store: str, tracking_uri: str) -> Any:
    """Return the graph as a Kubeflow pipeline.

    With one group the tasks are the parameter ``tasks`` and can be replaced when a run is started. With
    several groups they are part of the graph, and there is no such parameter: which loop a new task belongs
    to would not be known.

    Args:
        groups: The tasks; one group without tasks makes a graph whose tasks are given at its start.
        image: The container image of all steps.
        store: The default address of the store.
        tracking_uri: The default address of MLflow.
    """
    defaults = list(groups[0].tasks)
    loops = [_build_loop(group.resources, image) for group in groups]

    def add_tasks(tasks: Any, lists: Sequence[Any], *, run: Any, store: Any, **options: Any) -> None:
        record = {"run": run, "kfp_run": dsl.PIPELINE_JOB_ID_PLACEHOLDER, "store": store}
        finish = report(tasks=tasks, tracking_uri=options["tracking_uri"], **record)
        _configure(finish, image)
        with dsl.ExitHandler(finish, name="run"):
            trained = [
                train(tasks=given, run=run, store=store, **options)
                for train, given in zip(loops, lists, strict=True)
            ]
            # An exit step that fails does not make a run fail; a step before it does.
            judged = verdict(tasks=tasks, **record).after(*trained)
            _configure(judged, image)

    if len(groups) > 1:
        return _build_fixed_pipeline(groups, add_tasks, store=store, tracking_uri=tracking_uri)

    @dsl.pipeline(name=PIPELINE_NAME, description=_DESCRIPTION)
    def lorry(
        tasks: list = defaults,
        run: str = "",
        store: str = store,
        tracking_uri: str = tracking_uri,
        checkpoints: str = "",
        force: bool = False,
    ) -> None:
        options = {"tracking_uri": tracking_uri, "checkpoints": checkpoints, "force": force}
        add_tasks(tasks, [tasks], run=run, store=store, **options)

    return lorry


def _build_fixed_pipeline(
    groups: Sequence[TaskGroup], add_tasks: Callable[..., None], *, store: str, tracking_uri: str
) -> Any:
    lists = [list(group.tasks) for group in groups]

    @dsl.pipeline(name=PIPELINE_NAME, description=_DESCRIPTION)
    def lorry(
        run: str = "",
        store: str = store,
        tracking_uri: str = tracking_uri,
        checkpoints: str = "",
        force: bool = False,
    ) -> None:
        options = {"tracking_uri": tracking_uri, "checkpoints": checkpoints, "force": force}
        everything = [task for members in lists for task in members]
        add_tasks(everything, lists, run=run, store=store, **options)

    return lorry


def _build_loop(resources: ResourcesSpec, image: str) -> Any:
    """Return a loop over tasks as a pipeline of its own: a step can wait for that, but not for a loop."""

    @dsl.pipeline(name="tasks")
    def train_tasks(
        tasks: list, run: str, store: str, tracking_uri: str, checkpoints: str, force: bool
    ) -> None:
        # A placeholder is replaced where it is a step's constant, but not where it is a parameter's default.
        places = {
            "run": run,
            "kfp_run": dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            "store": store,
            "tracking_uri": tracking_uri,
        }
        with dsl.ParallelFor(tasks) as task:
            _add_steps(task, resources, places, checkpoints=checkpoints, force=force, image=image)

    return train_tasks


def _add_steps(
    task: Any, resources: ResourcesSpec, places: dict[str, Any], *, checkpoints: Any, force: Any, image: str
) -> None:
    prepared = prepare_data(task=task, force=force, **places)
    _configure(prepared, image)
    data = prepared.outputs["data"]
    with dsl.If(prepared.outputs["Output"] == PROCEED, name="is-stale"):
        trained = finetune(task=task, data=data, checkpoints=checkpoints, **places)
        _configure(trained, image)
        _place(trained, resources)
        candidate = trained.outputs["candidate"]
        evaluated = evaluate(task=task, data=data, candidate=candidate, **places)
        _configure(evaluated, image)
        judged = gate(task=task, evaluation=evaluated.outputs["evaluation"], **places)
        _configure(judged, image)
        registered = register(
            task=task,
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
