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
    """Train an adapter on the frozen base."""
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
