"""Requests to retrain: tags on versions in a real MLflow in a SQLite database."""

from pathlib import Path

from lorry_pipelines.retraining.retrain_requests import RETRAIN_TAG, read_requests, remove_requests
from lorry_registry.mlflow.index import MlflowIndex


def test_a_tag_on_a_version_asks_for_its_task_until_it_was_retrained(mlflow_uri: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(mlflow_uri, mlflow_uri)
    for task in ("films", "food", "other"):
        client.create_registered_model(task)
        for _ in range(2):
            client.create_model_version(task, tmp_path.as_uri(), await_creation_for=0)
        client.set_model_version_tag(task, "2", "lorry.version", "2")
    client.set_model_version_tag("films", "1", RETRAIN_TAG, "the libraries are newer")
    client.set_model_version_tag("food", "2", RETRAIN_TAG, "")
    client.set_model_version_tag("other", "1", RETRAIN_TAG, "true")
    index = MlflowIndex(mlflow_uri)
    requests = read_requests(index, ["films", "food", "places"])
    assert requests == {"films": ["1"], "food": ["2"]}
    # A second request during the retraining is for the next one.
    client.set_model_version_tag("films", "2", RETRAIN_TAG, "true")
    remove_requests(index, requests, ["films", "places"])
    assert read_requests(index, ["films", "food"]) == {"films": ["2"], "food": ["2"]}


def test_an_mlflow_that_does_not_exist_yet_asks_for_nothing(tmp_path: Path) -> None:
    database = tmp_path / "none.db"
    assert read_requests(MlflowIndex(f"sqlite:///{database}"), ["films"]) == {}
    assert not database.exists()
