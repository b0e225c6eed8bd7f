"""The Kubeflow component of this step: glue only."""

from kfp import dsl

from lorry_registry.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def gate(
    task: str,
    run: str,
    kfp_run: str,
    store: str,
    tracking_uri: str,
    evaluation: dsl.Input[dsl.Artifact],
    decision: dsl.Output[dsl.Artifact],
) -> str:
    """Decide whether an adapter becomes the champion.

    Args:
        task: The task: its name and the digest of its document in the store, or the whole document as JSON.
        run: The id of the run, under which outcomes are kept; empty: Kubeflow's.
        kfp_run: The id that Kubeflow gave the run.
        store: The address of the store, such as s3://bucket/lorry.
        tracking_uri: The address of MLflow.
        evaluation: Its scores on the test rows, and those of the champion and the baselines.
        decision: The gate's decision, with its reasons.
    """
    from lorry_components.steps.runtime.step_context import enter_step

    return enter_step(
        "gate",
        task=task,
        run=run or kfp_run,
        store=store,
        tracking_uri=tracking_uri,
        evaluation=evaluation.path,
        decision=decision.path,
        metadata=decision.metadata,
    )
