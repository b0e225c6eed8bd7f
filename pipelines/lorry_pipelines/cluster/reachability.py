"""Addresses and code that no pod could reach or should run, found before a pipeline is compiled."""

import ipaddress
import re
from collections.abc import Iterator, Sequence

from lorry_pipelines.cluster.base_mounts import BASES_VARIABLE, place_bases
from lorry_pipelines.cluster.profile import ClusterProfile
from lorry_pipelines.step_images import Image, choose_images
from lorry_registry.errors import Fault, InvalidTaskError
from lorry_registry.settings import Settings
from lorry_registry.tasks.task_spec import TaskSpec
from lorry_registry.text.addresses import hide_secrets, split_store_address, split_tracking_address

_DIGEST = re.compile(r"[^@]+@sha256:[0-9a-f]{64}")
_DATABASES = ("postgresql", "mysql", "mssql")


def check_reachable(specs: Sequence[TaskSpec], settings: Settings, profile: ClusterProfile) -> None:
    """Refuse settings and tasks that cannot work in a pod.

    Args:
        specs: The tasks.
        settings: Where things are.
        profile: How steps are placed, and where they find bases with a logical name.

    Raises:
        InvalidTaskError: There are some; each is listed with its remedy.
    """
    has_bases = BASES_VARIABLE in place_bases(profile, settings).environment
    tasks = [fault for spec in specs for fault in _check_task(spec, has_bases=has_bases)]
    nodes = [fault for spec in specs for fault in _check_nodes(spec, profile)]
    _raise([*_check_settings(settings, profile), *tasks, *nodes])


def check_places(settings: Settings, profile: ClusterProfile) -> None:
    """Refuse settings that cannot work in a pod, before anything is copied.

    Raises:
        InvalidTaskError: There are some; each is listed with its remedy.
    """
    _raise([*_check_settings(settings, profile)])


def _check_settings(settings: Settings, profile: ClusterProfile) -> Iterator[Fault]:
    for image in choose_images(settings, profile):
        yield from _check_image(image)
    yield from _check_store(settings.store)
    yield from _check_tracking(settings.tracking_uri)


def _raise(faults: Sequence[Fault]) -> None:
    if faults:
        todo = "correct these, or compile for this machine: add --target local"
        raise InvalidTaskError("for a cluster", faults, todo=todo)


def _check_image(image: Image) -> Iterator[Fault]:
    if not _DIGEST.fullmatch(image.name):
        yield Fault(
            image.origin,
            f"{image.name} does not name an image by its digest, so it could change between two steps",
            "push it and name it NAME@sha256:DIGEST, as podman push --digestfile or docker push print it",
        )
    if _is_loopback(image.name.partition("/")[0].partition(":")[0]):
        yield Fault(
            image.origin, f"{image.name} is on this machine alone", "push it to a registry of the cluster"
        )


def _check_store(store: str) -> Iterator[Fault]:
    if split_store_address(store).scheme != "s3":
        yield Fault("LORRY_STORE", f"{store} is a folder of this machine", "use s3://BUCKET/PREFIX")


def _check_tracking(address: str) -> Iterator[Fault]:
    shown = hide_secrets(address)
    parts = split_tracking_address(address)
    scheme = parts.scheme.partition("+")[0]
    if scheme not in ("http", "https", *_DATABASES):
        yield Fault(
            "MLFLOW_TRACKING_URI",
            f"{shown} is a file of this machine",
            "use the address of an MLflow server, http://HOST:PORT",
        )
    elif _is_loopback(parts.hostname or ""):
        yield Fault(
            "MLFLOW_TRACKING_URI",
            f"{shown} is this machine's own address, which means the pod itself in a pod",
            "use the address that the server has in the cluster, such as http://mlflow.lorry.svc:5000",
        )


def _check_task(spec: TaskSpec, *, has_bases: bool) -> Iterator[Fault]:
    if spec.data.is_local:
        yield Fault(
            f"{spec.name}: data.source",
            f"{spec.data.source} is on this machine alone",
            "copy it to S3 and write s3://BUCKET/KEY; lorry submit copies it itself",
        )
    if spec.base.is_folder:
        yield Fault(
            f"{spec.name}: base.model",
            f"{spec.base.model} is a folder of this machine",
            "copy it to where pods find bases, lorry bases push FOLDER, and write bases:NAME; or use a base "
            "of a hub with its revision, or package:NAME/FOLDER of a package in the image",
        )
    if spec.base.is_named and not has_bases:
        yield Fault(
            f"{spec.name}: base.model",
            f"{spec.base.model} is a logical name, and pods do not know where bases are",
            "give the profile the claim that holds them, bases: {claim: lorry-bases, path: /bases}, "
            "or set LORRY_BASES to s3://BUCKET/PREFIX",
        )


def _check_nodes(spec: TaskSpec, profile: ClusterProfile) -> Iterator[Fault]:
    if spec.resources.nodes > 1 and profile.trainer is None:
        yield Fault(
            f"{spec.name}: resources.nodes",
            f"training on {spec.resources.nodes} nodes takes Kubeflow Trainer, and the profile names none",
            "install it and write trainer: {runtime: torch-distributed} in the profile, or train on one node",
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
