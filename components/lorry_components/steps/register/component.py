"""The Kubeflow component of this step: glue only."""

from kfp import dsl

from lorry_registry.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def register(
    task: str,
    run: str,
    kfp_run: str,
    store: str,
    tracking_uri: str,
    checkpoints: str,
    data: dsl.Input[dsl.Dataset],
    candidate: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    decision: dsl.Input[dsl.Artifact],
    adapter: dsl.Output[dsl.Model],
) -> str:
    """Publish an adapter to the store, the ledger and MLflow."""
    from lorry_components.steps.runtime.step_context import enter_step

    return enter_step(
        "register",
        task=task,
        run=run or kfp_run,
        store=store,
        tracking_uri=tracking_uri,
        checkpoints=checkpoints,
        data=data.path,
        candidate=candidate.path,
        evaluation=evaluation.path,
        decision=decision.path,
        adapter=adapter,
    )
