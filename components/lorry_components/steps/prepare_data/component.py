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
    """Read, check and split the data of a task, unless an adapter is up to date already."""
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
