"""Steps in containers on this machine, through Docker or podman's socket."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lorry_registry.errors import MissingExtraError, UsageError

RUN_LABEL = "lorry.run"
_SHARED_MEMORY = "1g"
# The only places in a container that may be written, besides what is mounted. They end with it.
_HOME = "/home/lorry"
_SCRATCH = {"/tmp": "mode=1777", _HOME: "mode=1777"}  # noqa: S108


class Mount(BaseModel):
    """A folder of this machine that steps in containers see, under the same or another path."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Path
    target: Path
    is_read_only: bool


def check_engine(images: Iterable[str]) -> None:
    """Check that containers can be run, before anything is spent, and pull the images that are not here.

    Raises:
        UsageError: There is no engine, or an image cannot be pulled.
    """
    import docker
    from docker.errors import DockerException

    for image in images:
        try:
            with contextlib.closing(docker.from_env()) as client:
                if not client.images.list(name=image):
                    client.images.pull(image)
        except DockerException as error:
            first = str(error).splitlines()[0]
            raise UsageError(
                f"containers of {image} cannot be run: {first}",
                where="--runner docker",
                todo="start Docker or podman's service, set DOCKER_HOST, and build the images: make images",
            ) from error


def find_image_digest(image: str) -> str:
    """Return the digest of an image that is on this machine; empty if the engine knows none.

    That of the registry it was pulled from, or else of its configuration, by which the engine names it.

    Raises:
        UsageError: The engine cannot be asked.
    """
    import docker
    from docker.errors import DockerException

    try:
        with contextlib.closing(docker.from_env()) as client:
            found = client.images.get(image).attrs
    except DockerException as error:
        raise UsageError(
            f"the image cannot be looked at: {str(error).splitlines()[0]}",
            where=image,
            todo="build the image: see infra/images",
        ) from error
    named = [str(name).partition("@")[2] for name in found.get("RepoDigests") or ()]
    digest = next(iter(named), "") or str(found.get("Id", ""))
    return digest if digest.startswith("sha256:") else ""


def build_runner(
    run: str, mounts: tuple[Mount, ...], environment: Mapping[str, str], *, network: str, user: str = ""
) -> Any:
    """Return Kubeflow's runner for containers. They cannot write to their own root, nor gain privileges.

    Args:
        run: The run's id, which labels its containers.
        mounts: Folders of this machine.
        environment: Variables in the containers.
        network: The containers' network: ``none`` unless a step needs one.
        user: The user that steps run as, ``UID:GID``; empty: the one who started the run, to whom the files
            that steps write then belong.
    """
    try:
        from docker.types import Mount as DockerMount
    except ImportError as error:
        raise MissingExtraError("docker is not installed", todo="pip install 'lorry[pipelines]'") from error
    from kfp import local

    return local.DockerRunner(
        user=user or f"{os.getuid()}:{os.getgid()}",
        network_mode=network,
        mounts=[
            DockerMount(str(mount.target), str(mount.source), type="bind", read_only=mount.is_read_only)
            for mount in mounts
        ],
        environment={"HOME": _HOME, **environment},
        read_only=True,
        tmpfs=_SCRATCH,
        security_opt=["no-new-privileges"],
        labels={RUN_LABEL: run},
        shm_size=_SHARED_MEMORY,
    )


@contextlib.contextmanager
def report_exit_codes() -> Iterator[None]:
    """Let Kubeflow's local runner see the exit codes of its containers.

    It lets the engine remove a container when it ends, and counts one that no longer exists as a success:
    with podman, a failed step cannot be distinguished from a good one (kfp 2.17, docker_task_handler.py).
    """
    from kfp.local import docker_task_handler as handler

    stock = handler.run_docker_container
    handler.run_docker_container = _run_container
    try:
        yield
    finally:
        handler.run_docker_container = stock


def remove_containers(run: str) -> None:
    """Stop and remove the containers of an interrupted run."""
    import docker

    with contextlib.closing(docker.from_env()) as client:
        for container in client.containers.list(all=True, filters={"label": f"{RUN_LABEL}={run}"}):
            container.remove(force=True)


def _run_container(
    client: Any, image: str, command: list[str], volumes: dict[str, Any], **options: Any
) -> int:
    container = client.containers.run(image=image, command=command, detach=True, volumes=volumes, **options)
    try:
        for line in container.logs(stream=True):
            print(line.decode(errors="replace"), end="")  # noqa: T201 - the run's log
        return int(container.wait()["StatusCode"])
    finally:
        container.remove(force=True)
