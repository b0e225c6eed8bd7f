"""How long MLflow's client waits, and which way its files go."""

import os
import socket
from collections.abc import Iterator

import pytest

from lorry_registry.errors import TrackingError
from lorry_registry.mlflow.connection import MlflowConnection
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.mlflow.network import BRIEF, DIRECT_DOWNLOADS, limit_s3

RETRIES, TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)


def test_a_request_has_its_variables_and_leaves_none() -> None:
    connection = MlflowConnection("http://host")
    with connection.reporting("ask"):
        assert (os.environ[RETRIES], os.environ[TIMEOUT]) == ("4", "10")
        assert os.environ[DIRECT_DOWNLOADS] == "false"
        with connection.limiting(60), connection.reporting("ask"):
            assert os.environ[RETRIES] == "1"
        assert os.environ[RETRIES] == "4"
        with connection.transferring(30 << 20):
            assert os.environ[TIMEOUT] == "40"
    assert not [name for name in os.environ if name.startswith("MLFLOW_")]


def test_what_the_user_set_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DIRECT_DOWNLOADS, "true")
    monkeypatch.setenv(RETRIES, "7")
    connection = MlflowConnection("http://host", BRIEF)
    with connection.reporting("ask"), connection.transferring():
        assert (os.environ[DIRECT_DOWNLOADS], os.environ[RETRIES]) == ("true", "7")
    assert os.environ[DIRECT_DOWNLOADS] == "true"


def test_nothing_is_asked_when_the_time_is_over() -> None:
    connection = MlflowConnection("http://host")
    with (
        connection.limiting(-1),
        pytest.raises(TrackingError, match="no time was left to upload a model"),
        connection.reporting("upload a model"),
    ):
        pytest.fail("it was asked")
    with connection.limiting(-1), connection.transferring(10 << 20), connection.reporting("go on"):
        # A large file has the time that it takes.
        return


@pytest.fixture
def silent_port() -> Iterator[int]:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield silent.getsockname()[1]


def test_a_database_that_does_not_answer_is_asked_once(
    silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setattr("mlflow.store.db.utils.time.sleep", lambda _: pytest.fail("MLflow tries again"))
    for port, patience in ((9, ""), (silent_port, "1")):
        if patience:
            monkeypatch.setenv("PGCONNECT_TIMEOUT", patience)
        index = MlflowIndex(f"postgresql+psycopg://user:secret@127.0.0.1:{port}/x")
        with pytest.raises(TrackingError, match="cannot open it") as caught:
            index.check_reachable()
        assert "secret" not in str(caught.value)
        assert "that MLflow is up" in caught.value.todo


def test_mlflows_own_client_of_s3_gives_up_after_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from mlflow.store.artifact.s3_artifact_repo import _get_s3_client

    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    limit_s3.cache_clear()
    limit_s3()
    config = _get_s3_client(s3_endpoint_url="http://127.0.0.1:9", region_name="x").meta.config
    assert (config.connect_timeout, config.read_timeout) == (5, 5)
    assert config.retries["total_max_attempts"] == 2
    limit_s3.cache_clear()
