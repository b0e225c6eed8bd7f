"""Containers for the end-to-end tests: podman's Docker-compatible service and this project's image.

infra/ci/ makes both. Without them a test is skipped, and says what is missing; in CI, or with
LORRY_REQUIRE_CONTAINERS=1, it fails instead, so that a broken installation does not pass for a green run.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "infra" / "ci"
DEFAULT_IMAGE = "localhost/lorry-python:latest"
DEFAULT_SLIM_IMAGE = "localhost/lorry-slim:latest"
DEFAULT_SERVE_IMAGE = "localhost/lorry-serve:latest"


def give_up(reason: str) -> NoReturn:
    """Skip, or fail where containers are required."""
    if os.environ.get("CI") or os.environ.get("LORRY_REQUIRE_CONTAINERS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def podman_service() -> Iterator[str]:
    """A DOCKER_HOST that podman answers at for the length of the session."""
    if shutil.which("podman") is None:
        give_up("podman is not installed: on Debian, apt-get install podman runc")
    # Not pytest's own temporary folder: a socket's path may not be longer than 107 bytes.
    with tempfile.TemporaryDirectory(prefix="lorry-") as folder:
        socket = Path(folder, "podman.sock")
        started = subprocess.run(
            [SCRIPTS / "start-podman-service.sh", socket], capture_output=True, text=True, check=False
        )
        if started.returncode != 0:
            give_up(f"podman's service did not start: {started.stderr.strip()}")
        pid = int(started.stdout)
        try:
            yield f"unix://{socket}"
        finally:
            end_process(pid)


def end_process(pid: int, patience: float = 10) -> None:
    """End the process that was started, and no other."""
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        # A zombie waits for whatever adopted it, which is not this process: it has ended all the same.
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def lorry_image() -> str:
    """The name of an image for training, built from this repository: LORRY_TEST_IMAGE, or the default."""
    return find_image(os.environ.get("LORRY_TEST_IMAGE", DEFAULT_IMAGE))


@pytest.fixture(scope="session")
def slim_image() -> str:
    """The name of the slim image, built from this repository: LORRY_TEST_SLIM_IMAGE, or the default."""
    return find_image(os.environ.get("LORRY_TEST_SLIM_IMAGE", DEFAULT_SLIM_IMAGE))


@pytest.fixture(scope="session")
def serve_image() -> str:
    """The name of the image for serving: LORRY_TEST_SERVE_IMAGE, or the default."""
    return find_image(os.environ.get("LORRY_TEST_SERVE_IMAGE", DEFAULT_SERVE_IMAGE))


def find_image(name: str) -> str:
    """Return the name of an image that is here."""
    if shutil.which("podman") is None:
        give_up("podman is not installed: on Debian, apt-get install podman runc")
    if subprocess.run(["podman", "image", "exists", name], capture_output=True, check=False).returncode != 0:
        give_up(f"there is no image {name}: run infra/ci/make-base-image.sh and DEMO=yes make images")
    return name
