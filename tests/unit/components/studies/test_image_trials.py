"""Comparisons on images: what is trained again when an image was changed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click.testing
import pytest
import yaml
from PIL import Image

from lorry_components.studies.trials import Trial
from lorry_pipelines.cli import lorry
from lorry_registry.tasks.task_spec import TaskSpec


def test_a_changed_image_is_another_cell(
    make_image_spec: Callable[..., TaskSpec],
    diffusion_pipeline: Path,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []

    def interrupt(trials: Sequence[Trial], *_: Any, **__: Any) -> None:
        seen.extend(trial.digest for trial in trials)
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    monkeypatch.setattr("lorry_pipelines.studies.study_run.run_trials", interrupt)
    document = make_image_spec(diffusion_pipeline).model_dump(mode="json", exclude={"generate", "evaluate"})
    document["method"] = {"name": "lora", "r": 4}
    path = tmp_path / "dog.yaml"
    path.write_text(yaml.safe_dump(document), "utf-8")
    for _ in range(2):
        result = click.testing.CliRunner().invoke(lorry, ["compare", str(path), "--methods", "lora"])
        assert seen, result.output
        Image.new("RGB", (64, 64), (1, 2, 3)).save(photographs / "0.png")
    assert seen[0] != seen[1]
