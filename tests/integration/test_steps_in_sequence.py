"""From rows to a prediction: each step as a plain function, on real data and the real pretrained encoder."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorry_components.inference import load_adapter
from lorry_components.steps.evaluate.evaluation_report import EvaluationReport
from lorry_components.steps.evaluate.step import evaluate
from lorry_components.steps.finetune.step import finetune, name_checkpoints
from lorry_components.steps.gate.step import Decision, decide
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.steps.register.step import Registration, register
from lorry_components.tasks.resolution import resolve_task
from lorry_components.tasks.staleness import assess_staleness
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import TaskSpec

pytestmark = pytest.mark.slow

RealRows = Callable[..., Path]

# What makes something of use of the real base in seconds.
LEARNING: dict[str, dict[str, Any]] = {
    "lora": {"epochs": 4, "learning_rate": 2e-3},
    "full": {"epochs": 2, "learning_rate": 2e-4},
    "p-tuning": {"epochs": 5, "learning_rate": 1e-2, "batch_size": 8},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"r": 8, "alpha": 16, "targets": ["query", "value"]},
    "full": {},
    "p-tuning": {"tokens": 8},
}
# Almost nothing: the head stays about as random as it was.
ONE_STEP = {"steps": 1, "learning_rate": 1e-4}
TEXTS = ["The food was wonderful and the staff very kind.", "Terrible service. I will never come back."]


@dataclass(frozen=True)
class Passage:
    """What the steps of one training left behind."""

    summary: TrainingSummary
    report: EvaluationReport
    decision: Decision
    registration: Registration


class Line:
    """The steps in sequence, as the pipeline runs them, in one folder."""

    def __init__(self, folder: Path, tracking: str) -> None:
        self._folder = folder
        self.registry = Registry(LocalStore(folder / "store"), folder / "cache")
        self.index = MlflowIndex(tracking)
        self._passages = 0

    def run(self, spec: TaskSpec) -> Passage:
        self._passages += 1
        work = self._folder / f"passage-{self._passages}"
        data, candidate, evaluation = work / "data", work / "candidate", work / "evaluation"
        prepare_data(resolve_task(spec), data)
        checkpoints = work / "checkpoints" / name_checkpoints(resolve_task(spec), data)
        summary = finetune(resolve_task(spec), data, candidate, checkpoints=checkpoints)
        report = evaluate(resolve_task(spec), data, candidate, evaluation, registry=self.registry)
        decision = decide(spec.gate, EvaluationReport.load(evaluation))
        registration = register(
            resolve_task(spec),
            candidate,
            report,
            decision,
            registry=self.registry,
            index=self.index,
            details={},
        )
        assert registration.warning == ""
        return Passage(summary, report, decision, registration)


@pytest.fixture
def line(tmp_path: Path, tracking: str) -> Line:
    return Line(tmp_path, tracking)


def write_task(base: str, source: Path, kind: str, method: str, **sections: Any) -> TaskSpec:
    document: dict[str, Any] = {
        "name": f"{source.stem.replace('_', '-')}-{method}",
        "kind": kind,
        "base": {"model": base},
        "data": {
            "source": str(source),
            "split": {"validation": 0.1, "test": 0.4, "seed": 0},
            "max_length": 64,
        },
        "method": {"name": method, **OPTIONS[method]},
        "train": {"batch_size": 16, "hidden_dropout": 0.0, "precision": "fp32"},
        "evaluate": {"resamples": 200},
        # One step learns little, and is to be promoted.
        "gate": {"minimum_rows": 1, "baseline": "none"},
    }
    for name, fields in sections.items():
        document[name] = document.get(name, {}) | fields
    return TaskSpec.model_validate(document)


def predict_by_name(line: Line, task: str) -> list[str]:
    """Predict with the champion of a task, through Lorry and through plain MLflow, which have to agree."""
    import mlflow.pyfunc

    found = line.registry.resolve(task)
    loaded = load_adapter(line.registry.fetch(found.adapter_id), expected_id=found.adapter_id)
    predictions = loaded.predictor.predict([{"text": text} for text in TEXTS])
    frame = mlflow.pyfunc.load_model(f"models:/{task}@champion").predict(TEXTS)
    labels: list[str] = frame["label"].tolist()
    assert labels == [prediction["label"] for prediction in predictions]
    np.testing.assert_allclose(frame["score"], [prediction["score"] for prediction in predictions])
    return labels


@pytest.mark.parametrize("method", ["full", "p-tuning"])
def test_a_first_version_is_found_by_the_name_of_its_task(
    line: Line, real_base: str, real_rows: RealRows, method: str
) -> None:
    source = real_rows("sentiment_sentences/yelp.jsonl", 160)
    # With a fitted head, few rows may well end where they began: then nothing of the base has changed.
    head = {"pooling": "transformers"}
    spec = write_task(real_base, source, "text-classification", method, train=LEARNING[method], head=head)
    passage = line.run(spec)
    assert passage.decision.passed, passage.decision.reasons
    assert passage.report.evaluation.headline.value > 0.6
    found = line.registry.resolve(spec.name)
    assert (found.version, found.adapter_id) == (1, passage.registration.event.adapter_id)
    assert found.manifest.evaluation == passage.report.evaluation
    size = found.manifest.size_bytes
    assert size > 40 * 2**20 if method == "full" else size < 2**20
    assert set(predict_by_name(line, spec.name)) <= {"positive", "negative"}


def test_versions_with_and_without_a_gain(line: Line, real_base: str, real_rows: RealRows) -> None:
    source = real_rows("sentiment_sentences/yelp.jsonl", 160)
    fixed = {
        "evaluate": {"metrics": ["accuracy"]},
        "gate": {"minimum_gain": 0.05, "confidence": 0.9},
        # With a fitted head a single step is as good as many here.
        "head": {"init": "random"},
    }

    def write(train: dict[str, Any]) -> TaskSpec:
        return write_task(real_base, source, "text-classification", "lora", train=train, **fixed)

    spec = write(LEARNING["lora"])
    assert assess_staleness(resolve_task(spec), line.registry).reason == "it has no adapter yet"
    first = line.run(write(ONE_STEP))
    assert first.decision.passed, first.decision.reasons

    second = line.run(spec)
    comparison = second.report.champion
    assert comparison is not None
    assert comparison.version == 1
    assert comparison.value == pytest.approx(first.report.evaluation.headline.value)
    assert second.report.evaluation.headline.value > 0.75
    assert second.decision.passed, second.decision.reasons
    assert second.registration.event.is_promotion
    assert predict_by_name(line, spec.name) == ["positive", "negative"]

    third = line.run(write(ONE_STEP | {"seed": 3}))
    assert not third.decision.passed
    assert "over v2 on the same rows" in third.decision.reasons[-1]
    event = third.registration.event
    assert (event.version, event.champion_after) == (3, 2)
    assert line.registry.resolve(spec.name).version == 2
    assert line.registry.resolve(spec.name).manifest.size_bytes < 2**20
    assert line.index.read_aliases(spec.name) == {
        "champion": second.registration.event.adapter_id,
        "challenger": event.adapter_id,
    }

    # Nothing is trained again, and it is said why.
    assert assess_staleness(resolve_task(spec), line.registry).version == 2
    assert assess_staleness(resolve_task(write(ONE_STEP)), line.registry).version == 1
    # A person may decide otherwise, and take it back.
    line.registry.promote(spec.name, 3, reason="to try it")
    assert line.registry.resolve(spec.name).version == 3
    line.registry.rollback(spec.name, reason="it is worse")
    assert line.registry.resolve(spec.name).version == 2
    assert [error for _, error in line.registry.verify_task(spec.name) if error] == []


def test_a_candidate_below_the_minimum_leaves_the_task_without_a_champion(
    line: Line, real_base: str, real_rows: RealRows
) -> None:
    source = real_rows("sst2_glue/validation.jsonl", 120)
    spec = write_task(
        real_base,
        source,
        "text-classification",
        "lora",
        data={"columns": {"text": "sentence", "label": "label"}},
        train=ONE_STEP,
        gate={"minimum": 0.95},
    )
    passage = line.run(spec)
    assert not passage.decision.passed
    assert "is below the minimum 0.950" in passage.decision.reasons[0]
    assert line.registry.describe_task(spec.name).champion is None
    assert set(passage.report.evaluation.metrics) == {"accuracy", "f1", "matthews"}


def test_a_pair_of_texts_gets_a_number(line: Line, real_base: str, real_rows: RealRows) -> None:
    source = real_rows("stsb/validation.jsonl.gz", 100)
    columns = {"text": "sentence1", "text_pair": "sentence2", "label": "score"}
    spec = write_task(
        real_base,
        source,
        "regression",
        "lora",
        data={"columns": columns},
        train={"steps": 4, "learning_rate": 2e-3},
    )
    passage = line.run(spec)
    assert passage.decision.passed, passage.decision.reasons
    import mlflow.pyfunc

    rows = [json.loads(text) for text in source.read_text().splitlines()[:5]]
    pairs = [{"text": row["sentence1"], "text_pair": row["sentence2"]} for row in rows]
    found = line.registry.resolve(spec.name)
    expected = load_adapter(line.registry.fetch(found.adapter_id)).predictor.predict(pairs)
    frame = mlflow.pyfunc.load_model(f"models:/{spec.name}@champion").predict(pairs)
    np.testing.assert_allclose(frame["value"], [prediction["value"] for prediction in expected])
