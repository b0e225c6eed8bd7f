"""From tasks to a compiled pipeline file."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from lorry_registry.settings import Settings
from lorry_registry.task_spec import ResourcesSpec, TaskSpec


def compile_pipeline(specs: Sequence[TaskSpec], target: Path, *, settings: Settings) -> None:
    """Compile the graph into a YAML file that runs here and on a cluster.

    Args:
        specs: The tasks that are built in as defaults; none: they are given when a run is started.
        target: The file; its name ends in ``.yaml``.
        settings: Where the image, the store and MLflow are by default.
    """
    from kfp import compiler

    from lorry_pipelines.graph import TaskGroup, build_pipeline, group_tasks

    groups = group_tasks(specs) or [TaskGroup(ResourcesSpec(), ())]
    with warnings.catch_warnings():
        # kfp builds on deprecated parts of protobuf and typing; none of it is ours to mend.
        warnings.simplefilter("ignore")
        pipeline = build_pipeline(
            groups, image=settings.image, store=settings.store, tracking_uri=settings.tracking_uri
        )
        compiler.Compiler().compile(pipeline, str(target))
