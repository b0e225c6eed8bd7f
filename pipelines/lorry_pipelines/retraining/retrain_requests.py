"""Requests to retrain a task: the tag ``lorry.retrain`` on one of its versions in MLflow."""

from collections.abc import Collection, Mapping, Sequence

from lorry_registry.mlflow.index import MlflowIndex

RETRAIN_TAG = "lorry.retrain"

Requests = Mapping[str, Sequence[str]]
"""Task -> MLflow's numbers of the versions that have the tag."""


def read_requests(index: MlflowIndex, tasks: Collection[str]) -> Requests:
    """Return which of some tasks are to be retrained.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    if not index.has_database():
        return {}
    requests: dict[str, list[str]] = {}
    for version in index.find_tagged_versions(RETRAIN_TAG):
        if version.name in tasks:
            requests.setdefault(version.name, []).append(str(version.version))
    return requests


def remove_requests(index: MlflowIndex, requests: Requests, tasks: Collection[str]) -> None:
    """Remove the tag from versions of tasks that were retrained.

    A version that was tagged in the meantime keeps its tag: that is another request.

    Args:
        index: MLflow.
        requests: What was read before the retraining.
        tasks: The tasks that were retrained, or had nothing to be done.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    for task in tasks:
        for number in requests.get(task, ()):
            index.remove_version_tag(task, number, RETRAIN_TAG)
