"""The graph: five steps for each task, all tasks side by side, a verdict on them, and a report at every exit.

The loop over tasks has a single condition: a task that is up to date, or whose data cannot be used, does not
ask for a GPU. Each later step checks by itself whether an earlier one failed, and ends at once: a failed task
neither stops its siblings nor needs a condition at every step. The verdict fails if a task did, and the run
with it; the report is an exit step, whose own failure would not count.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kfp import dsl

from lorry_components.steps.evaluate.component import evaluate
from lorry_components.steps.finetune.component import finetune
from lorry_components.steps.gate.component import gate
from lorry_components.steps.prepare_data.component import prepare_data
from lorry_components.steps.register.component import register
from lorry_components.steps.report.component import report
from lorry_components.steps.runtime.build_facts import IMAGE_VARIABLE
from lorry_components.steps.runtime.outcomes import PROCEED
from lorry_components.steps.verdict.component import verdict
from lorry_pipelines.cluster.placement import place_step
from lorry_pipelines.cluster.profile import ClusterProfile
from lorry_pipelines.step_images import StepImages
from lorry_registry.tasks.task_references import refer_to_task
from lorry_registry.tasks.task_spec import ResourcesSpec, TaskSpec

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


def build_pipeline(
    groups: Sequence[TaskGroup],
    *,
    images: StepImages,
    store: str,
    tracking_uri: str,
    checkpoints: str = "",
    profile: ClusterProfile | None = None,
) -> Any:
    """Return the graph as a Kubeflow pipeline.

    With one group the tasks are the parameter ``tasks`` and can be replaced when a run is started. With
    several groups they are part of the graph, and there is no such parameter: which loop a new task belongs
    to would not be known.

    Args:
        groups: The tasks; one group without tasks makes a graph whose tasks are given at its start.
        images: The container images of the steps.
        store: The default address of the store.
        tracking_uri: The default address of MLflow.
        checkpoints: Where checkpoints are kept by default.
        profile: How steps are placed on a cluster; None for this machine, where nothing is placed.
    """
    configure = functools.partial(_configure, images=images, profile=profile)
    config = _limit_run(profile)
    train = _build_loops(groups, configure, None if profile is None else profile.tasks_at_once)
    everything = [task for group in groups for task in group.tasks]

    def add_tasks(tasks: Any, *, run: Any, store: Any, **options: Any) -> None:
        record = {"run": run, "kfp_run": dsl.PIPELINE_JOB_ID_PLACEHOLDER, "store": store}
        finish = report(tasks=tasks, tracking_uri=options["tracking_uri"], **record)
        configure(finish, "report")
        with dsl.ExitHandler(finish, name="run"):
            trained = train(run=run, store=store, **options)
            # An exit step that fails does not make a run fail; a step before it does.
            judged = verdict(tasks=tasks, **record).after(trained)
            configure(judged, "verdict")

    if len(groups) == 1:

        @dsl.pipeline(name=PIPELINE_NAME, description=_DESCRIPTION, pipeline_config=config)
        def lorry(
            tasks: list = everything,
            run: str = "",
            store: str = store,
            tracking_uri: str = tracking_uri,
            checkpoints: str = checkpoints,
            force: bool = False,
        ) -> None:
            """Train, judge and register one adapter for each task.

            Args:
                tasks: The tasks: each its name and the digest of its document in the store, or the document.
                run: The id of the run, under which outcomes are kept; empty: Kubeflow's.
                store: The address of the store, such as s3://bucket/lorry.
                tracking_uri: The address of MLflow.
                checkpoints: The address in a store where checkpoints are kept; empty: beside the step.
                force: Whether tasks are trained whose adapter is up to date.
            """
            options = {"tracking_uri": tracking_uri, "checkpoints": checkpoints, "force": force}
            add_tasks(tasks, run=run, store=store, tasks_of_loop=tasks, **options)

        return lorry

    @dsl.pipeline(name=PIPELINE_NAME, description=_DESCRIPTION, pipeline_config=config)
    def lorry_with_fixed_tasks(
        run: str = "",
        store: str = store,
        tracking_uri: str = tracking_uri,
        checkpoints: str = checkpoints,
        force: bool = False,
    ) -> None:
        """Train, judge and register one adapter for each task of the graph.

        Args:
            run: The id of the run, under which outcomes are kept; empty: Kubeflow's.
            store: The address of the store, such as s3://bucket/lorry.
            tracking_uri: The address of MLflow.
            checkpoints: The address in a store where checkpoints are kept; empty: beside the step.
            force: Whether tasks are trained whose adapter is up to date.
        """
        options = {"tracking_uri": tracking_uri, "checkpoints": checkpoints, "force": force}
        add_tasks(everything, run=run, store=store, **options)

    return lorry_with_fixed_tasks


def _build_loops(groups: Sequence[TaskGroup], configure: Callable[..., None], at_once: int | None) -> Any:
    """Return the loops over tasks as a pipeline of its own: a step can wait for that, but not for a loop.

    All loops are in one: kfp 2.17 mixes up the placement of steps of the same name in two inner pipelines.
    The limit ``at_once`` holds for each loop: Argo keeps it in the template of the loop.
    """

    def add_loop(tasks: Any, group: TaskGroup, places: dict[str, Any], checkpoints: Any, force: Any) -> None:
        place = functools.partial(configure, resources=group.resources)
        # A placeholder is replaced where it is a step's constant, but not where it is a parameter's default.
        places = {**places, "kfp_run": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
        with dsl.ParallelFor(tasks, parallelism=at_once) as task:
            _add_steps(task, places, place, checkpoints=checkpoints, force=force)

    if len(groups) == 1:

        @dsl.pipeline(name="tasks")
        def train_tasks(
            tasks_of_loop: list, run: str, store: str, tracking_uri: str, checkpoints: str, force: bool
        ) -> None:
            places = {"run": run, "store": store, "tracking_uri": tracking_uri}
            add_loop(tasks_of_loop, groups[0], places, checkpoints, force)

        return train_tasks

    @dsl.pipeline(name="tasks")
    def train_groups(run: str, store: str, tracking_uri: str, checkpoints: str, force: bool) -> None:
        places = {"run": run, "store": store, "tracking_uri": tracking_uri}
        for group in groups:
            add_loop(list(group.tasks), group, places, checkpoints, force)

    return train_groups


def _add_steps(
    task: Any, places: dict[str, Any], place: Callable[..., None], *, checkpoints: Any, force: Any
) -> None:
    prepared = prepare_data(task=task, force=force, **places)
    place(prepared, "prepare_data")
    data = prepared.outputs["data"]
    with dsl.If(prepared.outputs["Output"] == PROCEED, name="is-stale"):
        trained = finetune(task=task, data=data, checkpoints=checkpoints, force=force, **places)
        place(trained, "finetune")
        candidate = trained.outputs["candidate"]
        evaluated = evaluate(task=task, data=data, candidate=candidate, **places)
        place(evaluated, "evaluate")
        judged = gate(task=task, evaluation=evaluated.outputs["evaluation"], **places)
        place(judged, "gate")
        registered = register(
            task=task,
            checkpoints=checkpoints,
            data=data,
            candidate=candidate,
            evaluation=evaluated.outputs["evaluation"],
            decision=judged.outputs["decision"],
            **places,
        )
        place(registered, "register")


def _configure(
    task: Any,
    step: str,
    *,
    images: StepImages,
    profile: ClusterProfile | None,
    resources: ResourcesSpec | None = None,
) -> None:
    image = images.find(step)
    task.set_container_image(image)
    # Whether there is anything to do depends on the ledger, which the backend's cache does not see.
    task.set_caching_options(False)
    if profile is not None:
        # A pod does not know its image, which belongs to the provenance of what it registers.
        task.set_env_variable(IMAGE_VARIABLE, image)
        place_step(task, step, profile, resources or ResourcesSpec())


def _limit_run(profile: ClusterProfile | None) -> dsl.PipelineConfig | None:
    if profile is None:
        return None
    return dsl.PipelineConfig(
        ttl_seconds_after_finished=profile.ttl_seconds, active_deadline_seconds=profile.deadline_seconds
    )
