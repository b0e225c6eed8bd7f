"""From rows to a prediction: each step as a plain function, on real data and the real pretrained encoder."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorry_components.evaluate.report import EvaluationReport
from lorry_components.evaluate.step import evaluate
from lorry_components.finetune.step import finetune, name_checkpoints
from lorry_components.finetune.summary import TrainingSummary
from lorry_components.gate.step import Decision, decide
from lorry_components.inference import load_adapter
from lorry_components.prepare_data.step import prepare_data
from lorry_components.register.step import Registration, register
from lorry_components.staleness import assess_staleness
from lorry_registry.mlflow_index import MlflowIndex
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.task_spec import TaskSpec

RealRows = Callable[..., Path]

# What takes a champion from chance to something of use in seconds.
LEARNING: dict[str, dict[str, Any]] = {
    "lora": {"epochs": 4, "learning_rate": 2e-3},
    "full": {"epochs": 2, "learning_rate": 2e-4},
    "p-tuning": {"epochs": 6, "learning_rate": 1e-2},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"r": 8, "alpha": 16, "targets": ["query", "value"]},
    "full": {},
    "p-tuning": {"tokens": 8},
}
# Almost nothing: the head stays about as random as it was.
ONE_STEP = {"steps": 1, "learning_rate": 1e-4}


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
        prepare_data(spec, data)
        checkpoints = work / "checkpoints" / name_checkpoints(spec, data)
        summary = finetune(spec, data, candidate, checkpoints=checkpoints)
        report = evaluate(spec, data, candidate, evaluation, registry=self.registry)
        decision = decide(spec.gate, EvaluationReport.load(evaluation))
        registration = register(
            spec, candidate, report, decision, registry=self.registry, index=self.index, details={}
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
    }
    for name, fields in sections.items():
        document[name] = document.get(name, {}) | fields
    return TaskSpec.model_validate(document)


@pytest.mark.parametrize("method", ["lora", "full", "p-tuning"])
def test_a_second_version_with_a_gain_takes_over(
    line: Line, real_base: str, real_rows: RealRows, method: str
) -> None:
    source = real_rows("sentiment_sentences/yelp.jsonl", 200)
    fixed = {"evaluate": {"metrics": ["accuracy"]}, "gate": {"minimum_gain": 0.05, "confidence": 0.9}}

    def write(train: dict[str, Any]) -> TaskSpec:
        return write_task(real_base, source, "text-classification", method, train=train, **fixed)

    assert assess_staleness(write(ONE_STEP), line.registry).is_stale
    first = line.run(write(ONE_STEP))
    assert first.decision.passed, first.decision.reasons
    second = line.run(write(LEARNING[method]))
    comparison = second.report.champion
    assert comparison is not None
    assert comparison.version == 1
    assert comparison.value == pytest.approx(first.report.evaluation.headline.value)
    assert second.report.evaluation.headline.value > 0.7
    assert second.decision.passed, second.decision.reasons
    assert second.registration.event.is_promotion

    # A task's name finds it, and it predicts what was evaluated.
    spec = write(LEARNING[method])
    found = line.registry.resolve(spec.name)
    assert (found.version, found.adapter_id) == (2, second.registration.event.adapter_id)
    assert found.manifest.evaluation == second.report.evaluation
    loaded = load_adapter(line.registry.fetch(found.adapter_id), expected_id=found.adapter_id)
    texts = ["The food was wonderful and the staff very kind.", "Terrible service. I will never come back."]
    predictions = loaded.predictor.predict([{"text": text} for text in texts])
    assert [prediction["label"] for prediction in predictions] == ["positive", "negative"]
    import mlflow.pyfunc

    frame = mlflow.pyfunc.load_model(f"models:/{spec.name}@champion").predict(texts)
    assert frame["label"].tolist() == ["positive", "negative"]
    np.testing.assert_allclose(frame["score"], [prediction["score"] for prediction in predictions])
    size = found.manifest.size_bytes
    assert size < 2**20 if method != "full" else size > 40 * 2**20

    # Nothing is trained again, and it is said why.
    assert assess_staleness(spec, line.registry).version == 2
    assert assess_staleness(write(ONE_STEP), line.registry).version == 1
    assert [error for _, error in line.registry.verify_task(spec.name) if error] == []


def test_a_third_version_without_a_gain_is_a_challenger(
    line: Line, real_base: str, real_rows: RealRows
) -> None:
    source = real_rows("sentiment_sentences/amazon.jsonl", 120)

    def write(train: dict[str, Any]) -> TaskSpec:
        evaluate_section = {"metrics": ["accuracy"]}
        return write_task(
            real_base, source, "text-classification", "lora", train=train, evaluate=evaluate_section
        )

    line.run(write(LEARNING["lora"]))
    weak = line.run(write(ONE_STEP | {"seed": 3}))
    assert not weak.decision.passed
    assert "over v1 on the same rows" in weak.decision.reasons[-1]
    event = weak.registration.event
    assert (event.version, event.champion_after) == (2, 1)
    task = write(ONE_STEP).name
    assert line.registry.resolve(task).version == 1
    assert line.index.read_aliases(task)["challenger"] == event.adapter_id
    # A person may decide otherwise, and take it back.
    line.registry.promote(task, 2, reason="to try it")
    assert line.registry.resolve(task).version == 2
    line.registry.rollback(task, reason="it is worse")
    assert line.registry.resolve(task).version == 1


def test_a_candidate_below_the_minimum_leaves_the_task_without_a_champion(
    line: Line, real_base: str, real_rows: RealRows
) -> None:
    source = real_rows("sst2_glue/validation.jsonl", 200)
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
    source = real_rows("stsb/validation.jsonl.gz", 160)
    columns = {"text": "sentence1", "text_pair": "sentence2", "label": "score"}
    spec = write_task(
        real_base,
        source,
        "regression",
        "lora",
        data={"columns": columns},
        train={"steps": 8, "learning_rate": 2e-3},
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


def test_the_same_task_twice_gives_the_same_adapter(line: Line, real_base: str, real_rows: RealRows) -> None:
    source = real_rows("sentiment_sentences/imdb.jsonl", 60)
    spec = write_task(real_base, source, "text-classification", "lora", train={"steps": 3})
    first, second = line.run(spec), line.run(spec)
    assert second.registration.event == first.registration.event
    assert second.registration.manifest == first.registration.manifest
    assert len(line.registry.list_versions(spec.name)) == 1
