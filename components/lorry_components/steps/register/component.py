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
    """Publish an adapter to the store, the ledger and MLflow.

    Args:
        task: The task: its name and the digest of its document in the store, or the whole document as JSON.
        run: The id of the run, under which outcomes are kept; empty: Kubeflow's.
        kfp_run: The id that Kubeflow gave the run.
        store: The address of the store, such as s3://bucket/lorry.
        tracking_uri: The address of MLflow.
        checkpoints: The address in a store where checkpoints are kept; empty: beside the step.
        data: The prepared rows: training, validation and test.
        candidate: The adapter that was trained.
        evaluation: Its scores on the test rows, and those of the champion and the baselines.
        decision: The gate's decision, with its reasons.
        adapter: The adapter in the store, with its version and its page in MLflow.
    """
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
