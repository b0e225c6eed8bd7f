"""The Kubeflow component of this step: glue only."""

from kfp import dsl

from lorry_registry.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def finetune(
    task: str,
    run: str,
    kfp_run: str,
    store: str,
    tracking_uri: str,
    checkpoints: str,
    force: bool,
    data: dsl.Input[dsl.Dataset],
    candidate: dsl.Output[dsl.Model],
) -> str:
    """Train an adapter on the frozen base.

    Args:
        task: The task: its name and the digest of its document in the store, or the whole document as JSON.
        run: The id of the run, under which outcomes are kept; empty: Kubeflow's.
        kfp_run: The id that Kubeflow gave the run.
        store: The address of the store, such as s3://bucket/lorry.
        tracking_uri: The address of MLflow.
        checkpoints: The address in a store where checkpoints are kept; empty: beside the step.
        force: Whether a task is trained whose adapter is up to date.
        data: The prepared rows: training, validation and test.
        candidate: The adapter that was trained.
    """
    from lorry_components.steps.runtime.step_context import enter_step

    return enter_step(
        "finetune",
        task=task,
        run=run or kfp_run,
        store=store,
        tracking_uri=tracking_uri,
        checkpoints=checkpoints,
        force=force,
        data=data.path,
        candidate=candidate.path,
        metadata=candidate.metadata,
        kfp_run=kfp_run,
    )
