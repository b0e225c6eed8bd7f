"""How an MLflow is reached, by several processes at once, and what is said when it cannot be."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import MissingExtraError, TrackingError
from lorry_registry.mlflow.connection import MlflowConnection
from lorry_registry.mlflow.index import MlflowIndex

Make = Callable[..., Any]

_RECORD_AT_ONCE = """
import sys
from pathlib import Path
from lorry_registry.manifest import MANIFEST_NAME, Manifest
from lorry_registry.mlflow.index import MlflowIndex

uri, folder = sys.argv[1], Path(sys.argv[2])
manifest = Manifest.parse((folder / MANIFEST_NAME).read_bytes(), where="x")
index = MlflowIndex(uri)
experiment = index.ensure_experiment("reviews")
run_id = index.open_run("reviews", name="r", tags={})
index.log_parameters(run_id, {"train": {"seed": 1}})
version = index.record_version(
    "reviews", version=1, adapter_id=manifest.adapter_id, manifest=manifest, source=folder.as_uri(),
    run_id=run_id, model_id=None, reasons=("good",), promoted=True,
)
index.set_aliases("reviews", manifest.adapter_id, None)
index.close_run(run_id, failed=False)
print(experiment, version)
"""


def test_several_processes_may_begin_on_a_new_database_at_once(
    tmp_path: Path, make_adapter: Make, run_scripts: Callable[..., list[str]]
) -> None:
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    adapter = make_adapter()
    outputs = run_scripts(_RECORD_AT_ONCE, [(uri, adapter.path)] * 3)
    assert len(set(outputs)) == 1
    index = MlflowIndex(uri)
    assert index.find_version("reviews", adapter.adapter_id) == outputs[0].split()[1]
    assert index.read_aliases("reviews") == {"champion": adapter.adapter_id}


_DIE_AMONG_THE_TABLES = """
import os, signal, sys
import sqlalchemy
from lorry_registry.mlflow.index import MlflowIndex

seen = []

@sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "before_cursor_execute")
def die(connection, cursor, statement, *rest):
    seen.extend(["table"] if statement.strip().startswith("CREATE TABLE") else [])
    if len(seen) == 20:
        os.kill(os.getpid(), signal.SIGKILL)

MlflowIndex(sys.argv[1]).check_reachable()
"""


def test_a_process_killed_while_it_makes_the_database_leaves_none(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    killed = subprocess.run([sys.executable, "-c", _DIE_AMONG_THE_TABLES, uri], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "mlflow.db").exists()
    MlflowIndex(uri).ensure_experiment("reviews")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_a_database_need_not_exist_to_ask_for_it(tmp_path: Path, mlflow_uri: str) -> None:
    assert not MlflowIndex(f"sqlite:///{tmp_path}/none.db").has_database()
    assert MlflowIndex(mlflow_uri).has_database()
    assert MlflowIndex("http://mlflow:5000").has_database()
    assert not (tmp_path / "none.db").exists()


def test_a_file_that_is_no_database_is_one_clear_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database " * 100, "utf-8")
    with pytest.raises(TrackingError, match="cannot open it: file is not a database") as caught:
        MlflowIndex(f"sqlite:///{tmp_path}/mlflow.db").read_aliases("reviews")
    assert "MLFLOW_TRACKING_URI" in str(caught.value)


def test_a_server_that_is_not_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError) as caught:
        MlflowIndex("http://user:secret@127.0.0.1:9").read_aliases("reviews")
    assert str(caught.value) == (
        "http://***@127.0.0.1:9: cannot read the aliases of 'reviews': [Errno 111] Connection refused\n"
        "  -> check that MLFLOW_TRACKING_URI is right and that MLflow is up"
    )


@pytest.mark.parametrize("uri", ["sqlite:///x.db", "postgresql://host/x", "mysql+pymysql://host/x"])
def test_a_database_without_sqlalchemy_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    import importlib.util

    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "sqlalchemy" else original(name, *rest),
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'lorry\[train\]'"):
        MlflowIndex(uri).read_aliases("reviews")


def answer(status: int, body: str, path: str = "/api/2.0/mlflow/runs/create") -> Exception:
    """Return what MLflow's client raises on an answer."""
    import requests
    from mlflow.exceptions import MlflowException
    from mlflow.utils.rest_utils import verify_rest_response

    given = requests.Response()
    given.status_code, given._content = status, body.encode()
    with pytest.raises(MlflowException) as caught:
        verify_rest_response(given, path)
    return caught.value


@pytest.mark.parametrize(
    ("status", "body", "what", "todo"),
    [
        (401, "You are not authenticated", "does not accept who asks", "set MLFLOW_TRACKING_USERNAME"),
        (403, "Permission denied", "this user of MLflow may not do that", "EDIT on the task's experiment"),
        (403, "Invalid Host header - possible attack", "to be addressed by this name", "--allowed-hosts"),
        (200, "<!doctype html>\n<title>Log in", "is not MLflow, or a login", "set MLFLOW_TRACKING_TOKEN"),
        (503, "x" * 5000, "failed with error code 503", "that MLflow is up"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, body: str, what: str, todo: str) -> None:
    connection = MlflowConnection("http://host/x")
    with pytest.raises(TrackingError) as caught, connection.reporting("ask"):
        raise answer(status, body)
    assert what in caught.value.what
    assert todo in caught.value.todo
    assert len(caught.value.what) < 400


def test_the_way_of_artifacts_knows_statuses_only() -> None:
    import requests

    connection = MlflowConnection("http://user:secret@host/x")
    given = requests.Response()
    given.status_code = 403
    with (
        pytest.raises(TrackingError, match="this user of MLflow may not do that"),
        connection.reporting("ask"),
    ):
        raise requests.HTTPError(
            "403 Client Error: Forbidden for url: http://user:secret@host", response=given
        )


def test_an_error_of_s3_is_one_of_mlflows_artifacts() -> None:
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import ClientError, NoCredentialsError

    connection = MlflowConnection("http://host/x")
    for error in (
        NoCredentialsError(),
        S3UploadFailedError("Failed to upload x: access denied"),
        ClientError({"Error": {"Code": "InvalidAccessKeyId", "Message": "no such key"}}, "PutObject"),
    ):
        with pytest.raises(TrackingError, match="artifacts are on S3") as caught, connection.reporting("x"):
            raise error
        assert "check the AWS_* settings" in caught.value.todo
