"""MLflow's proxy on a cluster: the configuration that infra/k8s mounts, in a real nginx."""

import base64
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fixtures.clusters import K8S, find_object, render_choice

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
LOGIN = "Basic " + base64.b64encode(b"steps:pass word").decode()
WAIT_S = 180

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)")


class Upstream(BaseHTTPRequestHandler):
    """In MLflow's place: remembers what reaches it."""

    seen: ClassVar[list[tuple[str, dict[str, str]]]] = []
    first_bytes: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        self.seen.append((self.path, dict(self.headers)))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"OK")

    def do_PUT(self) -> None:
        self.rfile.read(1)
        self.first_bytes.set()
        self.rfile.read(int(self.headers["Content-Length"]) - 1)
        self.do_GET()

    def log_message(self, *arguments: Any) -> None:
        """Keep the tests' output clean."""


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until somebody listens; a process that ends before is a failure, with its log."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    pytest.fail(f"nobody listens on {port}: {log.read_text()}")


@contextlib.contextmanager
def run_proxy(folder: Path, upstream: int) -> Iterator[int]:
    """Nginx with the cluster's configuration; only its addresses and folders are this test's."""
    assert NGINX is not None
    port = find_port()
    login = folder / "login"
    login.mkdir()
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input="pass word", capture_output=True, text=True, check=True
    ).stdout.strip()
    (login / "htpasswd").write_text(f"steps:{hashed}\n")
    text = (K8S / "base" / "nginx.conf").read_text()
    changes = {
        " /tmp/": f" {folder}/",
        "127.0.0.1:5000": f"127.0.0.1:{upstream}",
        "listen 8080;": f"listen 127.0.0.1:{port};",
        "/etc/nginx/login": str(login),
        "/dev/stdout": str(folder / "access.log"),
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    log = folder / "nginx.log"
    # Started by root, its workers would be somebody who cannot read what is this test's.
    user = "user root; " if os.geteuid() == 0 else ""
    command = [NGINX, "-e", "stderr", "-c", str(folder / "nginx.conf"), "-g", f"{user}daemon off;"]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_for(port, process, log)
            yield port
        finally:
            process.terminate()


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[int]:
    """A proxy before a server that remembers."""
    Upstream.seen.clear()
    Upstream.first_bytes.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with run_proxy(tmp_path, server.server_address[1]) as port:
            yield port
        server.shutdown()


def ask(port: int, path: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic " + base64.b64encode(b"steps:password").decode()},
        {"Authorization": "Basic " + base64.b64encode(b"steps:").decode()},
        {"Authorization": "Bearer steps"},
        {"X-Forwarded-User": "steps"},
    ],
)
@pytest.mark.parametrize(
    "path", ["/", "/api/2.0/mlflow/experiments/search", "/health/../version", "/healthz", "/metrics"]
)
def test_nobody_passes_without_the_password(proxy: int, path: str, headers: dict[str, str]) -> None:
    assert ask(proxy, path, **headers)[0] == 401
    assert Upstream.seen == []


def test_mlflow_sees_the_host_and_never_the_password(proxy: int) -> None:
    assert ask(proxy, "/version", Authorization=LOGIN, Host="mlflow.lorry.svc") == (200, "OK")
    ((path, headers),) = Upstream.seen
    assert (path, headers["Host"]) == ("/version", "mlflow.lorry.svc")
    assert "Authorization" not in headers


def test_probes_need_no_password(proxy: int) -> None:
    assert ask(proxy, "/health") == (200, "OK")
    assert [path for path, _ in Upstream.seen] == ["/health"]


def test_figures_are_served_to_whoever_asks_by_number_and_has_the_password(proxy: int) -> None:
    assert ask(proxy, "/metrics", Authorization=LOGIN, Host="10.1.2.3:8080")[0] == 200
    assert Upstream.seen[0][1]["Host"] == "localhost"


def test_a_changed_login_holds_at_once_and_an_absent_one_lets_nobody_in(proxy: int, tmp_path: Path) -> None:
    login = tmp_path / "login" / "htpasswd"
    assert ask(proxy, "/", Authorization=LOGIN)[0] == 200
    login.write_text("")
    assert ask(proxy, "/", Authorization=LOGIN)[0] == 401
    login.unlink()
    assert ask(proxy, "/", Authorization=LOGIN)[0] in {401, 403, 500}


def test_an_artifact_is_passed_on_while_it_arrives(proxy: int) -> None:
    size = 4 << 20
    with socket.create_connection(("127.0.0.1", proxy), timeout=10) as client:
        lines = ["PUT /a HTTP/1.1", "Host: x", f"Authorization: {LOGIN}", f"Content-Length: {size}"]
        head = "\r\n".join([*lines, "Connection: close", "", ""])
        client.sendall(head.encode() + b"x" * 70_000)
        assert Upstream.first_bytes.wait(10)
        client.sendall(b"x" * (size - 70_000))
        assert client.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed (Debian: kubernetes-client)"
)
def test_mlflow_as_the_cluster_starts_it_serves_a_client_with_the_password(tmp_path: Path) -> None:
    (tmp_path / "kustomization").mkdir()
    objects = render_choice(tmp_path / "kustomization", "gpu")
    container = find_object(objects, "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"][0]
    port = find_port()
    changes = {
        "--port=5000": f"--port={port}",
        "--workers=2": "--workers=1",
        "--backend-store-uri=postgresql:///": f"--backend-store-uri=sqlite:///{tmp_path}/m.db",
    }
    assert set(changes) < set(container["args"])
    command = [
        sys.executable,
        "-m",
        *container["command"],
        *(changes.get(arg, arg) for arg in container["args"]),
    ]
    environment = {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
        **{variable["name"]: variable["value"] for variable in container["env"] if "value" in variable},
        **find_object(objects, "ConfigMap", "mlflow-hosts")["data"],
        "MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "artifacts"),
        "HOME": str(tmp_path),
    }
    log = tmp_path / "mlflow.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            wait_for(port, process, log)
            (tmp_path / "proxy").mkdir()
            with run_proxy(tmp_path / "proxy", port) as proxy:
                check_as_client(proxy, tmp_path)
        finally:
            process.terminate()


def check_as_client(proxy: int, folder: Path) -> None:
    """What a step does, and what others try."""
    search = "/api/2.0/mlflow/experiments/search?max_results=1"
    for host in ("mlflow", "mlflow.lorry.svc", "mlflow.team-a.svc.cluster.local", "localhost:8080"):
        assert ask(proxy, search, Authorization=LOGIN, Host=host)[0] == 200, host
    assert ask(proxy, search, Authorization=LOGIN, Host="mlflow.evil.example")[0] == 403
    script = (
        "import mlflow, pathlib, sys\n"
        "file = pathlib.Path(sys.argv[1]); file.write_bytes(b'x' * 3_000_000)\n"
        "with mlflow.start_run() as run: mlflow.log_metric('m', 1); mlflow.log_artifact(str(file))\n"
        "back = mlflow.artifacts.download_artifacts(\n"
        "    run_id=run.info.run_id, artifact_path=file.name, dst_path=sys.argv[2])\n"
        "assert pathlib.Path(back).stat().st_size == 3_000_000\n"
    )
    for password, status in (("pass word", 0), ("wrong", 1)):
        finished = subprocess.run(
            [sys.executable, "-c", script, str(folder / "a.bin"), str(folder / "back")],
            env={
                **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
                "HOME": str(folder),
                "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{proxy}",
                "MLFLOW_TRACKING_USERNAME": "steps",
                "MLFLOW_TRACKING_PASSWORD": password,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert finished.returncode == status, finished.stderr
    assert "401" in finished.stderr
