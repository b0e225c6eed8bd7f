"""The Kubeflow component of this step: glue only."""

from kfp import dsl

from lorry_registry.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def prepare_data(
    task: str,
    run: str,
    kfp_run: str,
    store: str,
    tracking_uri: str,
    force: bool,
    data: dsl.Output[dsl.Dataset],
) -> str:
    """Read, check and split the data of a task, unless an adapter is up to date already.

    Args:
        task: The task: its name and the digest of its document in the store, or the whole document as JSON.
        run: The id of the run, under which outcomes are kept; empty: Kubeflow's.
        kfp_run: The id that Kubeflow gave the run.
        store: The address of the store, such as s3://bucket/lorry.
        tracking_uri: The address of MLflow.
        force: Whether a task is trained whose adapter is up to date.
        data: The prepared rows: training, validation and test.
    """
    from lorry_components.steps.runtime.step_context import enter_step

    return enter_step(
        "prepare_data",
        task=task,
        run=run or kfp_run,
        store=store,
        tracking_uri=tracking_uri,
        force=force,
        data=data.path,
        metadata=data.metadata,
    )
