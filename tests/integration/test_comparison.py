"""A comparison on the real encoder and real rows: processes, one table, runs in a real MLflow."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

pytestmark = pytest.mark.slow

PROGRAM = Path(sys.executable).with_name("lorry")
METHODS = "lora,bitfit"


@pytest.fixture
def task(real_base: str, real_rows: Callable[..., Path], tmp_path: Path) -> Path:
    path = tmp_path / "news.yaml"
    document = {
        "name": "news",
        "kind": "text-classification",
        "base": {"model": real_base},
        "data": {
            "source": str(real_rows("ag_news/test.jsonl.gz", 150)),
            "split": {"validation": 0.4, "test": 0.1},
            "max_length": 48,
        },
        "method": {"name": "lora", "r": 8, "targets": ["query", "value"]},
        "train": {"steps": 3, "batch_size": 8},
        "evaluate": {"metrics": ["accuracy"]},
    }
    path.write_text(yaml.safe_dump(document), "utf-8")
    return path


def run(task: Path, *arguments: str) -> Any:
    home = task.parent / "home"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("LORRY_", "MLFLOW_"))},
        "LORRY_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    finished = subprocess.run(
        [PROGRAM, *arguments], check=False, capture_output=True, text=True, env=environment, cwd=task.parent
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_methods_are_compared_on_the_real_encoder(task: Path) -> None:
    lora, bitfit = run(task, "compare", str(task), "--no-probe", "--methods", METHODS, "--json")
    # The base states that its states are averaged, so that there is no pooler, whose bias BitFit would train.
    assert (lora["trained_parameters"], bitfit["trained_parameters"]) == (73_728, 26_112 - 384)
    assert lora["head_parameters"] == bitfit["head_parameters"] == 4 * 384 + 4
    for row in (lora, bitfit):
        assert 0 <= row["interval"][0] <= row["value"] <= row["interval"][1] <= 1
        assert row["adapter_bytes"] < 400_000
        # A process with torch, and the base in it; not the one that started it.
        assert 200 << 20 < row["peak_memory_bytes"] < 4 << 30
        assert row["peak_memory_place"] == ("gpu" if row["device"] == "cuda" else "process")
    home = task.parent / "home"
    (folder,) = (home / "studies").glob("compare-news-*")
    assert (folder / "plot.png").exists()
    assert not (home / "store").exists()

    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    # Apart from the trainings of the task itself.
    assert client.get_experiment_by_name("news") is None
    experiment = client.get_experiment_by_name("news (studies)")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [found for found in runs if "mlflow.parentRunId" not in found.data.tags]
    children = {found.info.run_name: found for found in runs if found is not parent}
    assert set(children) == {"lora, seed 0", "bitfit, seed 0"}
    for child in children.values():
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == "FINISHED"
        assert "train/loss" in child.data.metrics
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["lorry.recommendation"] in {"lora", "bitfit"}
    assert parent.data.tags["mlflow.note.content"].startswith("Recommended: **")
    assert children["lora, seed 0"].data.metrics["study/accuracy"] == lora["value"]
    assert {found.path for found in client.list_artifacts(parent.info.run_id)} == {"plot.png", "results.json"}
    assert not client.search_registered_models()

    # Again: nothing is trained and nothing is logged, and it says the same.
    assert run(task, "compare", str(task), "--no-probe", "--methods", METHODS, "--json") == [lora, bitfit]
    assert len(client.search_runs([experiment.experiment_id])) == 3
