"""A run of Kubeflow Pipelines, as its pages and MLflow's name it."""

from collections.abc import Mapping

RUN_TAG, PAGE_TAG = "lorry.kfp_run", "lorry.kfp_url"
"""The tags of an MLflow run that name the Kubeflow run it belongs to, and that run's page."""

NOTE_START = "Kubeflow run: "


def locate_kubeflow_run(host: str, run: str) -> str:
    """Return the address of a run's page.

    Args:
        host: The address of Kubeflow Pipelines, as a browser opens it.
        run: The run's id.
    """
    return f"{host.rstrip('/')}/#/runs/details/{run}"


def tag_kubeflow_run(host: str, run: str) -> dict[str, str]:
    """Return the tags of an MLflow run that belongs to a Kubeflow run.

    Args:
        host: The address of Kubeflow Pipelines, without secrets; empty: it is not known.
        run: The run's id.
    """
    return {RUN_TAG: run, **({PAGE_TAG: locate_kubeflow_run(host, run)} if host else {})}


def describe_kubeflow_run(tags: Mapping[str, str]) -> str:
    """Return a line in Markdown that leads from an MLflow run to its Kubeflow run; empty if it has none."""
    run, page = tags.get(RUN_TAG), tags.get(PAGE_TAG)
    if not run:
        return ""
    return f"{NOTE_START}[{run}]({page})" if page else f"{NOTE_START}{run}"
