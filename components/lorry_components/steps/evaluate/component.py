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
    """Score an adapter on the test rows and compare it with the champion.

    Args:
        task: The task: its name and the digest of its document in the store, or the whole document as JSON.
        run: The id of the run, under which outcomes are kept; empty: Kubeflow's.
        kfp_run: The id that Kubeflow gave the run.
        store: The address of the store, such as s3://bucket/lorry.
        tracking_uri: The address of MLflow.
        data: The prepared rows: training, validation and test.
        candidate: The adapter that was trained.
        evaluation: Its scores on the test rows, and those of the champion and the baselines.
        metrics: The scores, as Kubeflow shows them.
        plot: The page with the plots of the evaluation.
    """
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
