"""The Kubeflow component of this step: glue only."""

from kfp import dsl

from lorry_registry.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def evaluate(
    task: str,
    run: str,
    kfp_run: str,
    store: str,
    tracking_uri: str,
    data: dsl.Input[dsl.Dataset],
    candidate: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    plot: dsl.Output[dsl.HTML],
) -> str:
    """Score an adapter on the test rows and compare it with the champion."""
    from lorry_components.steps.runtime.step_context import enter_step

    return enter_step(
        "evaluate",
        task=task,
        run=run or kfp_run,
        store=store,
        tracking_uri=tracking_uri,
        data=data.path,
        candidate=candidate.path,
        evaluation=evaluation.path,
        plot=plot.path,
        metadata=metrics.metadata,
    )
