"""An MLflow whose S3 its clients do not reach: what they are told to fetch from there comes through it."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lorry_components.steps.register.mlflow_publication import publish_version, reconcile_task
from lorry_pipelines.diagnosis.mlflow_checks import check_mlflow
from lorry_registry.errors import TrackingError
from lorry_registry.mlflow.artifacts import try_artifacts
from lorry_registry.mlflow.connection import MlflowConnection
from lorry_registry.mlflow.index import MlflowIndex, sync_aliases
from lorry_registry.mlflow.network import BRIEF, DIRECT_DOWNLOADS
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings

from fixtures.adapters import enroll, write_adapter
from fixtures.loopback_server import LoopbackServer
from fixtures.mlflow_server import MlflowServer, run_mlflow
from fixtures.s3_server import BUCKET, S3Server, find_ports, s3_server  # noqa: F401

pytestmark = pytest.mark.exhaustive


class _Forwarding(BaseHTTPRequestHandler):
    """A proxy that only MLflow's server uses: it finds S3 under an address that leads nowhere."""

    target = ""

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        # S3 signs the host that the client names.
        headers = {name: value for name, value in self.headers.items() if name != "Proxy-Connection"}
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        with contextlib.closing(http.client.HTTPConnection(self.target)) as connection:
            connection.request(self.command, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.forward()

    def do_PUT(self) -> None:
        self.forward()

    def do_POST(self) -> None:
        self.forward()

    def do_HEAD(self) -> None:
        self.forward()

    def do_DELETE(self) -> None:
        self.forward()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def dead_port() -> int:
    return find_ports(1)[0]


@pytest.fixture(scope="module")
def server(
    s3_server: S3Server,  # noqa: F811
    dead_port: int,
    empty_mlflow: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[MlflowServer]:
    """Start an MLflow that keeps artifacts on an S3 that it alone reaches."""
    handler = type("Handler", (_Forwarding,), {"target": urlsplit(s3_server.endpoint).netloc})
    proxy = LoopbackServer(handler)
    proxy.start()
    variables = s3_server.list_variables(f"http://127.0.0.1:{dead_port}")
    folder = tmp_path_factory.mktemp("mlflow-server")
    try:
        with run_mlflow(
            folder,
            empty_mlflow,
            artifacts=f"s3://{BUCKET}/mlflow",
            variables=variables | {"HTTP_PROXY": proxy.host},
        ) as running:
            yield running
    finally:
        proxy.stop()


@contextlib.contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """Listen, and never answer."""
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        silent.bind(("127.0.0.1", port))
        silent.listen(16)
        silent.setblocking(False)
        yield silent


@pytest.fixture(params=["closed", "silent"])
def s3_port(request: pytest.FixtureRequest, dead_port: int) -> Iterator[socket.socket | None]:
    """Close the port that MLflow names, or listen there and never answer."""
    with listening(dead_port) if request.param == "silent" else contextlib.nullcontext() as silent:
        yield silent


def test_registration_goes_through_the_server(
    server: MlflowServer, s3_port: socket.socket | None, registry: Registry, tmp_path: Path
) -> None:
    task = f"task-{'silent' if s3_port else 'closed'}"
    adapter = write_adapter(tmp_path / task, task=task)
    enroll(registry, adapter, reasons=("a test",))
    index = MlflowIndex(server.endpoint)
    (version,) = registry.list_versions(task)
    with index.limiting(15):
        publish_version(index, registry, task=task, version=version, manifest=adapter.manifest)
        sync_aliases(index, registry, task)
    (recorded,) = index.list_model_versions(task)
    assert index.identify_version(recorded) == adapter.adapter_id
    assert index.read_aliases(task) == {"champion": adapter.adapter_id}
    assert reconcile_task(index, registry, task) == []
    if s3_port is not None:
        with pytest.raises(BlockingIOError):
            s3_port.accept()


def test_the_address_that_does_not_answer_is_named(
    server: MlflowServer, s3_port: object, dead_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = f"http://127.0.0.1:{dead_port}"
    answer = try_artifacts(MlflowConnection(server.endpoint, BRIEF))
    assert answer is not None
    assert answer.unreached == address
    settings = Settings.load({"MLFLOW_TRACKING_URI": server.endpoint}, tmp_path)
    found = {finding.subject: finding for finding in check_mlflow(settings, {})}["MLflow: artifacts"]
    assert found.level == "warning"
    assert address in found.text
    assert DIRECT_DOWNLOADS in found.todo
    monkeypatch.setenv(DIRECT_DOWNLOADS, "true")
    with pytest.raises(TrackingError, match=f"files be fetched from {address}, which does not answer"):
        try_artifacts(MlflowConnection(server.endpoint, BRIEF))


_DOWNLOAD = "import mlflow, sys; mlflow.artifacts.download_artifacts(sys.argv[1], dst_path=sys.argv[2])"


def test_other_clients_take_the_same_way_where_the_variable_is_set(
    server: MlflowServer, registry: Registry, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "plain", task="plain")
    enroll(registry, adapter, reasons=("a test",))
    index = MlflowIndex(server.endpoint)
    reconcile_task(index, registry, "plain")
    subprocess.run(
        [sys.executable, "-c", _DOWNLOAD, "models:/plain@champion", str(tmp_path / "got")],
        env={**os.environ, "MLFLOW_TRACKING_URI": server.endpoint, DIRECT_DOWNLOADS: "false"},
        check=True,
        timeout=120,
        capture_output=True,
    )
    assert (tmp_path / "got" / "MLmodel").exists()
