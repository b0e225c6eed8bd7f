"""The Kubeflow component of this step: glue only."""

from kfp import dsl

from lorry_registry.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def report(
    tasks: list,
    run: str,
    kfp_run: str,
    store: str,
    tracking_uri: str,
    status: dsl.PipelineTaskFinalStatus,  # noqa: ARG001 - makes it an exit task in the compiled graph
    page: dsl.Output[dsl.HTML],
):
    """Report the outcome of every task, no matter what happened.

    Args:
        tasks: The tasks, each as the steps of its loop take it.
        run: The id of the run, under which outcomes are kept; empty: Kubeflow's.
        kfp_run: The id that Kubeflow gave the run.
        store: The address of the store, such as s3://bucket/lorry.
        tracking_uri: The address of MLflow.
        status: How the run ended, as Kubeflow gives it to an exit step.
        page: The report, a page of HTML.
    """
    from lorry_components.steps.report.entry import main

    main(tasks=tasks, run=run or kfp_run, store=store, tracking_uri=tracking_uri, page=page.path)
