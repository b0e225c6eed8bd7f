"""Where a compiled pipeline and a run on this machine keep checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lorry_pipelines.compilation import compile_pipeline
from lorry_pipelines.local.launch import list_mounts
from lorry_registry.settings import Settings


def load(folder: Path, **variables: str) -> Settings:
    return Settings.load({f"LORRY_{name.upper()}": value for name, value in variables.items()}, folder)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        # A folder of this machine is none of a pod's: beside the candidate is better than nothing.
        ({}, ""),
        ({"checkpoints": "/srv/kept"}, ""),
        ({"store": "s3://models/lorry"}, "store"),
        ({"checkpoints": "store"}, "store"),
        ({"store": "s3://models/lorry", "checkpoints": "s3://scratch/lorry"}, "s3://scratch/lorry"),
    ],
)
def test_a_compiled_pipeline_names_a_place_that_every_machine_reaches(
    tmp_path: Path, variables: dict[str, str], expected: str
) -> None:
    compile_pipeline([], tmp_path / "lorry.yaml", settings=load(tmp_path, **variables))
    document: Any = yaml.safe_load((tmp_path / "lorry.yaml").read_text("utf-8"))
    assert document["root"]["inputDefinitions"]["parameters"]["checkpoints"]["defaultValue"] == expected


def test_containers_see_a_database_of_mlflow_that_is_elsewhere(tmp_path: Path) -> None:
    inside = {mount.source for mount in list_mounts([], load(tmp_path))}
    settings = Settings.load({"MLFLOW_TRACKING_URI": "sqlite:///shared/mlflow.db"}, tmp_path)
    (mount,) = [mount for mount in list_mounts([], settings) if mount.source not in inside]
    assert (mount.source, mount.target) == (tmp_path / "shared", tmp_path / "shared")
    assert not mount.is_read_only


def test_containers_see_the_folder_of_checkpoints(tmp_path: Path) -> None:
    inside = list_mounts([], load(tmp_path))
    assert tmp_path / ".lorry" / "checkpoints" not in {mount.source for mount in inside}
    elsewhere = list_mounts([], load(tmp_path, checkpoints=str(tmp_path / "kept")))
    (mount,) = [mount for mount in elsewhere if mount.source == tmp_path / "kept"]
    assert not mount.is_read_only
    assert mount.source.is_dir()
