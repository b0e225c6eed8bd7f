"""The compose file: what it publishes and asks for, and that its servers are those of the processes."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorry_stack import mlflow_server, seaweedfs
from lorry_stack.compose_variables import format_compose_variables
from lorry_stack.credentials import Credentials

FOLDER = Path(__file__).parents[3] / "infra" / "stack"
COMPOSE = FOLDER / "compose.yaml"
# The part of the compose specification that the file keeps to.
TOP_KEYS = {"name", "services", "volumes"}
SERVICE_KEYS = {
    *("image", "build", "command", "environment", "volumes", "ports", "healthcheck", "depends_on", "restart")
}
HEALTH_KEYS = {"test", "interval", "timeout", "retries"}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))
    return loaded


@pytest.fixture(scope="module")
def services(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["services"]
    return found


def test_it_keeps_to_the_specification(document: dict[str, Any], services: dict[str, Any]) -> None:
    assert set(document) == TOP_KEYS
    for name, service in services.items():
        assert set(service) <= SERVICE_KEYS, name
        assert all(isinstance(word, str) for word in service.get("command", [])), name
        assert all(isinstance(value, str) for value in service["environment"].values()), name
        assert set(service.get("healthcheck", {})) <= HEALTH_KEYS, name
        assert service["restart"] in ("no", "unless-stopped"), name
        for other, how in service.get("depends_on", {}).items():
            assert other in services
            assert how["condition"] in CONDITIONS
            # Who waits for health waits for ever without a check.
            assert how["condition"] != "service_healthy" or "healthcheck" in services[other]
        for volume in service.get("volumes", []):
            source, target, *_ = volume.split(":")
            assert target.startswith("/")
            assert (FOLDER / source).is_file() if source.startswith("./") else source in document["volumes"]
        if "build" in service:
            assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_nothing_is_published_beyond_the_loopback(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert "ports" not in services["postgresql"]


def test_images_have_versions(services: dict[str, Any]) -> None:
    for service in services.values():
        assert re.fullmatch(r"(docker\.io|localhost)/[a-z/-]+:\d+(\.\d+)+", service["image"])


def test_every_password_is_asked_for(services: dict[str, Any]) -> None:
    text = COMPOSE.read_text("utf-8")
    asked = set(re.findall(r"\$\{(\w+):\?", text))
    written = format_compose_variables(Credentials())
    assert asked == {line.partition("=")[0] for line in written.splitlines()}
    # Whatever sounds like a secret comes from outside, without a default.
    for service in services.values():
        for name, value in service["environment"].items():
            if re.search(r"PASSWORD|SECRET|KEY", name):
                assert value.startswith("${STACK_"), name
                assert ":?" in value, name


def test_a_file_of_passwords_is_private_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "env"
    command = [sys.executable, "-m", "lorry_stack", "compose-env", str(path)]
    environment = {"PYTHONPATH": f"{FOLDER}:{FOLDER.parents[1] / 'registry'}"}
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    content = path.read_text("utf-8")
    assert path.stat().st_mode & 0o777 == 0o600
    assert not any(line.partition("=")[2] in made.stdout for line in content.splitlines())
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "its passwords may be in use" in again.stderr
    assert path.read_text("utf-8") == content


def test_mlflow_is_set_up_as_in_processes(services: dict[str, Any]) -> None:
    command, environment = services["mlflow"]["command"], services["mlflow"]["environment"]
    assert f"--artifacts-destination=s3://{seaweedfs.ARTIFACTS_BUCKET}" in command
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environment["MLFLOW_AUTH_ADMIN_USERNAME"] == mlflow_server.ADMIN
    assert services["buckets"]["command"][-2:] == [seaweedfs.STORE_BUCKET, seaweedfs.ARTIFACTS_BUCKET]
    assert not [value for value in environment.values() if "://" in value and "@" in value and "${" in value]
    flags = {word for word in seaweedfs.build_command(Path("/data"), 8333) if "port" not in word}
    assert {"-webdav=false", "-s3.autoCreateBucket=false"} <= flags & set(services["seaweedfs"]["command"])
