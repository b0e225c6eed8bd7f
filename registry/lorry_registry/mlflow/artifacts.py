"""A check that MLflow's artifacts can be written and read from here, naming the address that fails."""

import contextlib
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lorry_registry.errors import TrackingError
from lorry_registry.mlflow.connection import MlflowConnection
from lorry_registry.mlflow.network import DIRECT_DOWNLOADS, PROBING, wants_direct_downloads
from lorry_registry.mlflow.ownership import REGISTRY_TAG

_NAME = "lorry-check.txt"
_THROUGH_SERVER = "mlflow-artifacts:/"


@dataclass(frozen=True, slots=True)
class ArtifactsAnswer:
    """What came of writing, reading and deleting an artifact.

    Attributes:
        place: Where it was.
        unreached: The address from which the server lets clients fetch files, if it does not answer here:
            Lorry fetches them through the server, but other clients of MLflow wait for it for minutes.
    """

    place: str
    unreached: str = ""


def try_artifacts(connection: MlflowConnection) -> ArtifactsAnswer | None:
    """Write a small artifact, read it again and delete it.

    Returns:
        What came of it; None: there is no experiment in which it could lie.

    Raises:
        TrackingError: It does not work; the message names the address that does not answer, or who refuses.
    """
    with connection.reporting("look for an experiment", PROBING):
        location = _find_location(connection.client)
    if location is None:
        return None
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    folder = f"lorry-check-{secrets.token_hex(8)}"
    content = secrets.token_bytes(16)
    with tempfile.TemporaryDirectory() as scratch, connection.transferring():
        path = Path(scratch) / _NAME
        path.write_bytes(content)
        with connection.reporting(f"write an artifact below {location}", PROBING):
            files: Any = get_artifact_repository(f"{location}/{folder}", tracking_uri=connection.tracking_uri)
            files.log_artifact(str(path))
        try:
            unreached = _find_unreached(connection, f"{location}/{folder}/{_NAME}")
            with connection.reporting(f"read an artifact below {location}", PROBING):
                read = Path(files.download_artifacts(_NAME, tempfile.mkdtemp(dir=scratch))).read_bytes()
        finally:
            # A user who may write need not be allowed to delete: 16 bytes stay.
            with contextlib.suppress(TrackingError), connection.reporting("delete an artifact", PROBING):
                files.delete_artifacts()
    if read != content:
        raise TrackingError(
            "an artifact is not read as it was written", where=location, todo="look at what stands between"
        )
    return ArtifactsAnswer(location, unreached)


def _find_location(client: Any) -> str | None:
    """Return where an experiment keeps artifacts: preferably one of Lorry's, which the user may write."""
    for filter_string in (f"tags.`{REGISTRY_TAG}` LIKE '%'", None):
        found = client.search_experiments(max_results=1, filter_string=filter_string)
        if found:
            return str(found[0].artifact_location).rstrip("/")
    return None


def _find_unreached(connection: MlflowConnection, address: str) -> str:
    """Return the host from which the server lets clients fetch a file, unless it answers here.

    Raises:
        TrackingError: It does not, and the user wants files to be fetched from there.
    """
    if not address.startswith(_THROUGH_SERVER):
        return ""
    import requests  # type: ignore[import-untyped]
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    path = address.removeprefix(_THROUGH_SERVER).lstrip("/")
    with connection.reporting("ask for a file's own address", PROBING):
        answer = http_request(  # type: ignore[no-untyped-call]
            get_default_host_creds(connection.tracking_uri),  # type: ignore[no-untyped-call]
            f"/api/2.0/mlflow-artifacts/presigned/{path}",
            "GET",
            raise_on_status=False,
        )
    if answer.status_code != requests.codes.ok:
        # A server that names no addresses hands out files itself.
        return ""
    named = answer.json()
    try:
        requests.get(named["url"], headers=named.get("headers") or {}, timeout=PROBING.seconds)
    except requests.RequestException as error:
        host = urlsplit(named["url"])
        unreached = f"{host.scheme}://{host.netloc}"
        if wants_direct_downloads():
            raise TrackingError(
                f"MLflow lets files be fetched from {unreached}, which does not answer here",
                where=connection.address,
                todo=f"unset {DIRECT_DOWNLOADS}, so that files come through the server",
            ) from error
        return unreached
    return ""
