"""The probe that runs on a cluster in a step's place, here before listeners of its own."""

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fixtures.clusters import K8S, Objects, find_object

SCRIPT = K8S / "components" / "probe" / "probe.py"
LOGIN = "Basic c3RlcHM6cGFzcyB3b3Jk"  # steps:pass word


class Locked(http.server.BaseHTTPRequestHandler):
    """A page behind a login."""

    def do_GET(self) -> None:
        is_known = self.headers.get("Authorization") == LOGIN or self.path == "/open"
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Keep the tests' output clean."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Locked) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{found.server_address[1]}"
        found.shutdown()


@pytest.fixture(scope="module")
def closed() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def run_probe(*arguments: str, **variables: str) -> tuple[int, list[str]]:
    login = {"MLFLOW_TRACKING_USERNAME": "steps", "MLFLOW_TRACKING_PASSWORD": "pass word"}
    finished = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, **login, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.stderr == ""
    return finished.returncode, finished.stdout.splitlines()


def test_all_is_as_it_should_be(server: str, closed: str) -> None:
    code, lines = run_probe(
        f"--reach={server}",
        "--reach-s3",
        f"--login=http://{server}/version",
        f"--refuse={closed}",
        "--refuse=no-such-host.invalid:80",
        AWS_ENDPOINT_URL_S3=f"http://{server}",
    )
    assert (code, {line[:6] for line in lines}, len(lines)) == (0, {"ok    "}, 5)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--reach={closed}", "is reached: [Errno"),
        ("--reach=no-such-host.invalid:80", "is reached: [Errno"),
        ("--refuse={server}", "are network policies enforced?"),
        ("--login=http://{server}/open", "without a login 200 instead of 401"),
        ("--login=http://{closed}/", "instead of 401"),
    ],
)
def test_what_is_not_as_it_should_be_is_said(server: str, closed: str, argument: str, message: str) -> None:
    code, lines = run_probe(f"--reach={server}", argument.format(server=server, closed=closed))
    assert (code, [line[:4].strip() for line in lines]) == (1, ["ok", "FAIL"])
    assert message in lines[1]


def test_a_wrong_password_is_said_and_not_shown(server: str) -> None:
    code, (line,) = run_probe(f"--login=http://{server}/version", MLFLOW_TRACKING_PASSWORD="wr0ng")  # noqa: S106
    assert (code, "with it 401 instead of 200" in line, "wr0ng" in line) == (1, True, False)


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        (
            {"AWS_ENDPOINT_URL_S3": "", "AWS_DEFAULT_REGION": "eu-central-1"},
            "s3.eu-central-1.amazonaws.com:443",
        ),
        ({"AWS_ENDPOINT_URL_S3": "http://s3.invalid"}, "s3.invalid:80"),
        ({"AWS_ENDPOINT_URL_S3": "https://s3.invalid:8333/x"}, "s3.invalid:8333"),
    ],
)
def test_s3_is_found_as_boto3_finds_it(variables: dict[str, str], place: str) -> None:
    _, (line,) = run_probe("--reach-s3", "--seconds=0.01", **variables)
    assert f" {place} is reached" in line


def test_the_job_passes_for_a_step(everything: Objects) -> None:
    job = find_object(everything, "Job", "lorry-probe")["spec"]["template"]
    assert "workflows.argoproj.io/workflow" in job["metadata"]["labels"]
    (container,) = job["spec"]["containers"]
    script = find_object(everything, "ConfigMap", "lorry-probe")["data"]["probe.py"]
    assert script == SCRIPT.read_text(encoding="utf-8")
    assert container["command"] == ["python3", "/etc/lorry/probe.py"]
