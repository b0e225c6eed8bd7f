"""SQuAD's own rows through every step, on the real pretrained encoder."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from lorry_components.inference import load_adapter
from lorry_components.steps.evaluate.evaluation_report import EvaluationReport
from lorry_components.steps.evaluate.step import evaluate
from lorry_components.steps.finetune.step import finetune, name_checkpoints
from lorry_components.steps.gate.step import decide
from lorry_components.steps.prepare_data.step import load_part, prepare_data
from lorry_components.steps.register.step import Registration, register
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import TaskSpec

pytestmark = pytest.mark.slow

# Almost nothing: the head stays about as random as it was.
ONE_STEP = {"steps": 1, "learning_rate": 1e-5}
ROWS = 260
LONGEST_CONTEXT = 350


@pytest.fixture
def squad(tmp_path: Path) -> Path:
    """Write evenly spaced rows with short contexts, so that a minute is enough."""
    root = os.environ.get("LORRY_TEST_DATA")
    if not root:
        pytest.skip("LORRY_TEST_DATA names no folder of data sets")
    with gzip.open(Path(root) / "squad_v1" / "validation.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [row for row in map(json.loads, stream) if len(row["context"]) <= LONGEST_CONTEXT]
    path = tmp_path / "squad.jsonl"
    chosen = rows[:: len(rows) // ROWS][:ROWS]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in chosen), "utf-8")
    return path


def write_task(base: str, source: Path, **train: Any) -> TaskSpec:
    return TaskSpec.model_validate(
        {
            "name": "squad",
            "kind": "question-answering",
            "base": {"model": base},
            "data": {
                "source": str(source),
                "columns": {"text": "question", "text_pair": "context", "label": "answers"},
                "split": {"validation": 0.1, "test": 0.3},
                "max_length": 128,
                "max_target": 30,
            },
            "method": {"name": "lora", "r": 8, "targets": "all-linear"},
            "train": {"batch_size": 8, "precision": "fp32", "hidden_dropout": 0.0, **train},
            "evaluate": {"resamples": 100},
            "gate": {"confidence": 0.5, "minimum_rows": 1, "baseline": "none"},
        }
    )


def run(spec: TaskSpec, folder: Path, registry: Registry, index: MlflowIndex) -> tuple[float, Registration]:
    """Run the steps; return the last loss on validation too."""
    data, candidate = folder / "data", folder / "candidate"
    prepare_data(resolve_task(spec), data)
    losses: list[float] = []
    finetune(
        resolve_task(spec),
        data,
        candidate,
        checkpoints=folder / name_checkpoints(resolve_task(spec), data),
        log_metrics=lambda metrics, _: losses.extend(
            value for name, value in metrics.items() if name == "validation/loss"
        ),
    )
    evaluate(resolve_task(spec), data, candidate, folder / "evaluation", registry=registry)
    report = EvaluationReport.load(folder / "evaluation")
    decision = decide(spec.gate, report)
    registration = register(
        resolve_task(spec), candidate, report, decision, registry=registry, index=index, details={}
    )
    assert registration.warning == ""
    return losses[-1], registration


def test_questions_about_wikipedia(real_base: str, squad: Path, tmp_path: Path, tracking: str) -> None:
    import mlflow.pyfunc

    registry, index = Registry(LocalStore(tmp_path / "store"), tmp_path / "cache"), MlflowIndex(tracking)
    spec = write_task(real_base, squad, epochs=2, learning_rate=3e-3)
    untrained, first = run(write_task(real_base, squad, **ONE_STEP), tmp_path / "first", registry, index)
    trained, second = run(spec, tmp_path / "second", registry, index)
    assert first.event.is_promotion
    assert trained < untrained - 1.0
    report = EvaluationReport.load(tmp_path / "second" / "evaluation")
    assert report.champion is not None
    assert report.champion.gain > 0.02
    assert second.event.is_promotion

    found = registry.resolve("squad")
    assert found.version == 2
    assert found.manifest.size_bytes < 2 * 2**20
    examples = load_part(tmp_path / "second" / "data", "test")
    rows = [example.row for example in examples[:20]]
    loaded = load_adapter(registry.fetch(found.adapter_id), expected_id=found.adapter_id)
    predictions = loaded.predictor.predict(rows)
    lines = (tmp_path / "second" / "evaluation" / "predictions.jsonl").read_text("utf-8").splitlines()
    recorded = [json.loads(line)["prediction"] for line in lines[:20]]
    assert [prediction["answer"] for prediction in predictions] == [entry["answer"] for entry in recorded]
    for row, prediction in zip(rows, predictions, strict=True):
        assert row["text_pair"][prediction["start"] : prediction["end"]] == prediction["answer"]
    frame = mlflow.pyfunc.load_model("models:/squad@champion").predict(rows)
    assert frame["answer"].tolist() == [prediction["answer"] for prediction in predictions]
