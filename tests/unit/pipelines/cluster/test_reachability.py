"""What no pod could reach is refused before a pipeline is compiled for a cluster."""

from pathlib import Path
from typing import Any

import pytest

from lorry_pipelines.cluster.profile import BasesProfile, ClusterProfile
from lorry_pipelines.cluster.reachability import check_reachable
from lorry_registry.errors import InvalidTaskError
from lorry_registry.settings import Settings
from lorry_registry.tasks.task_spec import TaskSpec

IMAGE = f"registry.example:5000/team/lorry@sha256:{'a' * 64}"
GOOD = {"LORRY_STORE": "s3://bucket/lorry", "MLFLOW_TRACKING_URI": "http://mlflow.lorry.svc:5000"} | {
    "LORRY_IMAGE": IMAGE
}
COMMIT = "c" * 40


def make_spec(source: str = "s3://data/films.jsonl", **base: Any) -> TaskSpec:
    return TaskSpec.model_validate(
        {
            "name": "films",
            "kind": "text-classification",
            "base": base or {"model": "owner/name", "revision": COMMIT},
            "data": {"source": source},
            "method": {"name": "lora"},
        }
    )


def list_faults(
    folder: Path, *specs: TaskSpec, profile: ClusterProfile | None = None, **changes: str
) -> list[str]:
    settings = Settings.load(GOOD | changes, folder)
    try:
        check_reachable(specs, settings, profile or ClusterProfile())
    except InvalidTaskError as error:
        assert all(fault.remedy for fault in error.faults)
        return [fault.where for fault in error.faults]
    return []


def test_what_pods_can_reach_passes(tmp_path: Path) -> None:
    package = make_spec(model="package:some_package/files")
    assert list_faults(tmp_path, make_spec(), package) == []
    assert list_faults(tmp_path, MLFLOW_TRACKING_URI="postgresql+psycopg://u:p@db.svc/mlflow") == []


@pytest.mark.parametrize(
    "image",
    [
        "registry.example/lorry:latest",
        "registry.example/lorry",
        "registry.example/lorry@sha256:12",
        f"localhost/lorry@sha256:{'a' * 64}",
        f"localhost:5000/lorry@sha256:{'a' * 64}",
        f"127.0.0.1:5000/lorry@sha256:{'a' * 64}",
    ],
)
def test_an_image_without_a_digest_or_of_this_machine_is_refused(tmp_path: Path, image: str) -> None:
    assert list_faults(tmp_path, LORRY_IMAGE=image) == ["LORRY_IMAGE"]


def test_both_images_are_checked_where_they_are_named(tmp_path: Path) -> None:
    assert list_faults(tmp_path, LORRY_SLIM_IMAGE="registry.example/slim:1") == ["LORRY_SLIM_IMAGE"]
    assert list_faults(tmp_path, LORRY_SLIM_IMAGE=IMAGE) == []
    images = {"train": IMAGE, "slim": "registry.example/slim:1"}
    profile = ClusterProfile.model_validate({"images": images})
    assert list_faults(tmp_path, profile=profile) == ["profile: images.slim"]
    # What the profile names is what runs.
    profile = ClusterProfile.model_validate({"images": {"train": IMAGE}})
    assert list_faults(tmp_path, profile=profile, LORRY_IMAGE="lorry:latest") == []


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:////home/me/.lorry/mlflow.db",
        "/home/me/mlruns",
        "file:///home/me/mlruns",
        "http://localhost:5000",
        "http://127.0.0.1:5000",
        "http://[::1]:5000",
        "http://mlflow.localhost",
    ],
)
def test_an_mlflow_of_this_machine_is_refused(tmp_path: Path, address: str) -> None:
    assert list_faults(tmp_path, MLFLOW_TRACKING_URI=address) == ["MLFLOW_TRACKING_URI"]


def test_everything_is_listed_at_once_and_no_password_is_shown(tmp_path: Path) -> None:
    other = make_spec(str(tmp_path / "films.jsonl"), model=str(tmp_path / "base"))
    assert list_faults(
        tmp_path,
        make_spec(),
        other,
        LORRY_STORE="store",
        MLFLOW_TRACKING_URI="sqlite:///mlflow.db",
        LORRY_IMAGE="localhost/lorry:latest",
    ) == [
        "LORRY_IMAGE",
        "LORRY_IMAGE",
        "LORRY_STORE",
        "MLFLOW_TRACKING_URI",
        "films: data.source",
        "films: base.model",
    ]
    settings = Settings.load(GOOD | {"MLFLOW_TRACKING_URI": "http://me:hunter2@localhost"}, tmp_path)
    with pytest.raises(InvalidTaskError) as caught:
        check_reachable([], settings, ClusterProfile())
    assert "hunter2" not in str(caught.value)


def test_a_base_with_a_logical_name_needs_a_place_that_pods_reach(tmp_path: Path) -> None:
    named = make_spec(model="bases:minilm")
    assert list_faults(tmp_path, named) == ["films: base.model"]
    assert list_faults(tmp_path, named, LORRY_BASES="/home/me/bases") == ["films: base.model"]
    assert list_faults(tmp_path, named, LORRY_BASES="s3://bucket/bases") == []
    claim = ClusterProfile(bases=BasesProfile(claim="lorry-bases"))
    assert list_faults(tmp_path, named, profile=claim) == []
    mounted = ClusterProfile(environment={"LORRY_BASES": "/models"})
    assert list_faults(tmp_path, named, profile=mounted) == []


def test_a_folder_is_told_how_to_become_a_base_of_the_cluster(tmp_path: Path) -> None:
    with pytest.raises(InvalidTaskError, match="lorry bases push FOLDER, and write bases:NAME"):
        check_reachable([make_spec(model="/home/me/base")], Settings.load(GOOD, tmp_path), ClusterProfile())
