"""The Kubeflow component of this step: glue only."""

from kfp import dsl

from lorry_registry.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def cluster_check(kfp_run: str, store: str, tracking_uri: str):
    """Tell what this pod reaches, in the store.

    Args:
        kfp_run: The id that Kubeflow gave the run.
        store: The address of the store, such as s3://bucket/lorry.
        tracking_uri: The address of MLflow.
    """
    from lorry_components.steps.cluster_check.entry import main

    main(run=kfp_run, store=store, tracking_uri=tracking_uri)
