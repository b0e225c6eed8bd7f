"""MLflow: whether it is reached, of what version it is, and what may be done there."""

import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from lorry_pipelines.diagnosis.findings import Finding
from lorry_registry.errors import MissingExtraError, TrackingError
from lorry_registry.mlflow.artifacts import try_artifacts
from lorry_registry.mlflow.connection import MlflowConnection, read_table_names
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.mlflow.network import DIRECT_DOWNLOADS
from lorry_registry.settings import Settings

SUBJECT = "MLflow"
# Logged models came with it.
_LEAST_MAJOR = 3
_SECONDS = 5
_FOUND = 200
_ABSENT = ("ENDPOINT_NOT_FOUND", "RESOURCE_DOES_NOT_EXIST")
_NEEDS_SERVER = "pip install 'lorry[train]', or set MLFLOW_TRACKING_URI to the address of a server"
# An empty name is refused for what it is, but only after the login: nothing is made.
_CREATIONS = {
    "experiments": "/api/2.0/mlflow/experiments/create",
    "registered models": "/api/2.0/mlflow/registered-models/create",
}


def check_mlflow(settings: Settings, environment: Mapping[str, str]) -> Sequence[Finding]:
    """Look at the MLflow that the settings name."""
    connection = MlflowConnection(settings.tracking_uri)
    if connection.is_database:
        return _check_database(connection, settings.tracking_uri)
    if urlsplit(settings.tracking_uri).scheme not in ("http", "https"):
        text = f"{connection.address} is neither a server nor a database, and is not looked at"
        return [Finding(SUBJECT, "warning", text, "set MLFLOW_TRACKING_URI to the address of a server")]
    return _check_server(connection, settings.tracking_uri, environment)


def _check_database(connection: MlflowConnection, uri: str) -> list[Finding]:
    missing = [name for name in ("mlflow", "sqlalchemy") if importlib.util.find_spec(name) is None]
    if missing:
        text = f"{connection.address} needs {missing[0]}, which is not installed"
        return [Finding(SUBJECT, "warning", text, _NEEDS_SERVER)]
    path = connection.database_file
    if path is not None and not path.exists():
        return [Finding(SUBJECT, "ok", f"{connection.address}: made by the first run")]
    try:
        with connection.reporting("open it"):
            names = read_table_names(uri)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"it needs {error.name!r}, which is not installed",
            where=connection.address,
            todo=f"pip install {error.name}, or set MLFLOW_TRACKING_URI to the address of a server",
        ) from error
    if "experiments" in names:
        # One that was moved would go on writing to its former place.
        MlflowIndex(uri).check_place()
    state = "its tables are there" if "experiments" in names else "its tables are made by the first run"
    version = importlib.metadata.version("mlflow")
    text = f"{connection.address}: a database, {state}; read and written by MLflow {version} here"
    return [Finding(SUBJECT, "ok", text, details={"version": version})]


def _check_server(connection: MlflowConnection, uri: str, environment: Mapping[str, str]) -> list[Finding]:
    with connection.reporting("reach it"):
        answer = _ask(uri, "GET", "/version", refusals=_ABSENT)
    version = answer.text.strip() if answer.status_code == _FOUND else ""
    proof = _name_proof(uri, environment)
    major = version.partition(".")[0]
    details = {"version": version, "login": proof}
    reached = f"{connection.address}: MLflow {version}, {proof}"
    if not major.isdigit():
        raise TrackingError(
            "what answers there is not MLflow, or a login stands before it",
            where=connection.address,
            todo="check MLFLOW_TRACKING_URI; if a login stands before it, set MLFLOW_TRACKING_TOKEN",
        )
    if int(major) < _LEAST_MAJOR:
        todo = f"upgrade it to {_LEAST_MAJOR} or later"
        return [Finding(SUBJECT, "failure", f"{reached}; that is too old", todo, details)]
    with connection.reporting("read experiments"):
        _ask(uri, "POST", "/api/2.0/mlflow/experiments/search", {"max_results": 1})
    return [
        Finding(SUBJECT, "ok", reached, details=details),
        _check_rights(connection, uri),
        _check_artifacts(connection),
    ]


def _check_rights(connection: MlflowConnection, uri: str) -> Finding:
    subject = "MLflow: rights"
    for what, path in _CREATIONS.items():
        try:
            with connection.reporting(f"create {what}"):
                answer = _ask(uri, "POST", path, {"name": ""}, refusals=("INVALID_PARAMETER_VALUE",))
        except TrackingError as error:
            return Finding(
                subject,
                "warning",
                f"{error.what}; trainings and versions of new tasks are not shown",
                error.todo,
            )
        if answer.status_code == _FOUND:
            return Finding(subject, "warning", "the server takes anything for a name; it may not be MLflow")
    return Finding(subject, "ok", "may read, and create experiments and registered models")


def _check_artifacts(connection: MlflowConnection) -> Finding:
    subject = "MLflow: artifacts"
    try:
        answer = try_artifacts(connection)
    except TrackingError as error:
        return Finding(subject, "failure", error.what, error.todo)
    if answer is None:
        return Finding(subject, "ok", "not tried: there is no experiment yet")
    text = f"written and read in {answer.place}"
    if answer.unreached:
        text += (
            f"; but the server lets clients fetch files from {answer.unreached}, which does not answer here: "
            "Lorry fetches them through the server, other clients of MLflow wait for minutes"
        )
        return Finding(subject, "warning", text, f"for those, set {DIRECT_DOWNLOADS}=false")
    return Finding(subject, "ok", text)


def _ask(uri: str, method: str, path: str, body: object = None, refusals: Sequence[str] = ()) -> Any:
    """Send a request as MLflow's own client does, with its ways of logging in.

    Args:
        uri: MLflow's address.
        method: The method of HTTP.
        path: The path.
        body: Sent as JSON.
        refusals: Error codes that are as good as success.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    answer = http_request(  # type: ignore[no-untyped-call]
        get_default_host_creds(uri),  # type: ignore[no-untyped-call]
        path,
        method,
        max_retries=0,
        timeout=_SECONDS,
        raise_on_status=False,
        **({"json": body} if body is not None else {}),
    )
    try:
        verify_rest_response(answer, path)
    except MlflowException as error:
        if error.error_code not in refusals:
            raise
    return answer


def _name_proof(uri: str, environment: Mapping[str, str]) -> str:
    """Say how the client proves who it is, in the order in which MLflow goes by it."""
    if "@" in urlsplit(uri).netloc:
        return "as the user in the address"
    if environment.get("MLFLOW_TRACKING_USERNAME"):
        return "as the user in MLFLOW_TRACKING_USERNAME"
    if environment.get("MLFLOW_TRACKING_TOKEN"):
        return "with the token in MLFLOW_TRACKING_TOKEN"
    return "without a login"
