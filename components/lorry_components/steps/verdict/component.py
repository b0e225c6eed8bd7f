"""The Kubeflow component of this step: glue only."""

from kfp import dsl

from lorry_registry.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def verdict(tasks: list, run: str, kfp_run: str, store: str):
    """Fail if a task failed, so that the run fails with it."""
    from lorry_components.steps.verdict.entry import main

    main(tasks=tasks, run=run or kfp_run, store=store)
