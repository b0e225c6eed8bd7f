"""Where pods are told that bases with a logical name are."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lorry_pipelines.cluster.base_mounts import BASE_STEPS, place_bases
from lorry_pipelines.cluster.profile import CLUSTER_STEPS, BasesProfile, ClusterProfile
from lorry_pipelines.compilation import compile_pipeline
from lorry_registry.settings import Settings
from lorry_registry.tasks.task_spec import TaskSpec

ON_S3 = "s3://bucket/lorry/bases"
CLAIM = BasesProfile(claim="lorry-bases", path="/models", sub_path="bases")


def load_settings(folder: Path, bases: str = "") -> Settings:
    return Settings.load(
        {
            "LORRY_STORE": "s3://bucket/lorry",
            "MLFLOW_TRACKING_URI": "http://mlflow.lorry.svc",
            "LORRY_IMAGE": f"registry.example/lorry@sha256:{'a' * 64}",
            "LORRY_BASES": bases,
        },
        folder,
    )


def compile_steps(folder: Path, profile: ClusterProfile, bases: str = "") -> dict[str, Any]:
    """Return the container and the Kubernetes settings of each step."""
    spec = TaskSpec.model_validate(
        {
            "name": "films",
            "kind": "text-classification",
            "base": {"model": "bases:minilm"},
            "data": {"source": "s3://data/films.jsonl"},
            "method": {"name": "lora"},
        }
    )
    path = folder / "lorry.yaml"
    compile_pipeline([spec], path, settings=load_settings(folder, bases), profile=profile)
    pipeline, platform = yaml.safe_load_all(path.read_text("utf-8"))
    executors = pipeline["deploymentSpec"]["executors"]
    placed = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    steps = {}
    for name, executor in executors.items():
        step = name.removeprefix("exec-").replace("-", "_")
        variables = {each["name"]: each.get("value") for each in executor["container"]["env"]}
        steps[step] = (variables, placed[name].get("pvcMount", []))
    return steps


@pytest.mark.filterwarnings("ignore")
def test_the_claim_is_mounted_where_a_base_is_loaded(tmp_path: Path) -> None:
    steps = compile_steps(tmp_path, ClusterProfile(bases=CLAIM), bases=ON_S3)
    assert set(CLUSTER_STEPS) <= steps.keys()
    for step, (variables, mounts) in steps.items():
        assert variables["LORRY_BASES"] == "/models"
        assert [(mount["mountPath"], mount["subPath"]) for mount in mounts] == (
            [("/models", "bases")] if step in BASE_STEPS else []
        )


@pytest.mark.filterwarnings("ignore")
def test_a_place_on_s3_is_told_to_the_steps(tmp_path: Path) -> None:
    for variables, mounts in compile_steps(tmp_path, ClusterProfile(), bases=ON_S3).values():
        assert variables["LORRY_BASES"] == ON_S3
        assert mounts == []


def test_a_folder_of_this_machine_is_not_told(tmp_path: Path) -> None:
    profile = ClusterProfile()
    assert place_bases(profile, load_settings(tmp_path, "/home/me/bases")) == profile
    own = ClusterProfile(environment={"LORRY_BASES": "/own"}, bases=CLAIM)
    assert place_bases(own, load_settings(tmp_path, ON_S3)).environment == {"LORRY_BASES": "/own"}
