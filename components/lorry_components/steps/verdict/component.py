"""The Kubeflow component of this step: glue only."""

from kfp import dsl

from lorry_registry.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def verdict(tasks: list, run: str, kfp_run: str, store: str):
    """Fail if a task failed, so that the run fails with it.

    Args:
        tasks: The tasks, each as the steps of its loop take it.
        run: The id of the run, under which outcomes are kept; empty: Kubeflow's.
        kfp_run: The id that Kubeflow gave the run.
        store: The address of the store, such as s3://bucket/lorry.
    """
    from lorry_components.steps.verdict.entry import main

    main(tasks=tasks, run=run or kfp_run, store=store)
