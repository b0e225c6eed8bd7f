"""A pipeline of one step, which looks from inside a cluster at what the others need."""

import warnings
from pathlib import Path

from kfp import compiler, dsl

from lorry_components.steps.cluster_check.component import cluster_check
from lorry_pipelines.cluster.placement import place_step
from lorry_pipelines.cluster.profile import ClusterProfile
from lorry_registry.tasks.task_spec import ResourcesSpec

CLUSTER_CHECK_NAME = "lorry-cluster-check"
# It is placed as the first step of a task is: on processors, with the bases mounted.
_PLACED_AS = "prepare_data"
_SECONDS = 900


def compile_cluster_check(
    target: Path, *, image: str, store: str, tracking_uri: str, profile: ClusterProfile
) -> None:
    """Compile it into a YAML file.

    Args:
        target: The file.
        image: The image of the steps.
        store: The address of the store.
        tracking_uri: The address of MLflow, without secrets; empty: the environment's.
        profile: How steps are placed.
    """
    config = dsl.PipelineConfig(
        ttl_seconds_after_finished=profile.ttl_seconds, active_deadline_seconds=_SECONDS
    )

    @dsl.pipeline(name=CLUSTER_CHECK_NAME, pipeline_config=config)
    def look_from_inside() -> None:
        looked = cluster_check(
            kfp_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, store=store, tracking_uri=tracking_uri
        )
        looked.set_container_image(image)
        looked.set_caching_options(False)
        place_step(looked, _PLACED_AS, profile, ResourcesSpec())

    with warnings.catch_warnings():
        # kfp uses deprecated parts of protobuf and typing, which cannot be fixed here.
        warnings.simplefilter("ignore")
        compiler.Compiler().compile(look_from_inside, str(target))
