"""Evaluation: scores on the test rows, and the comparison with the champion."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorry_components.inference import Predictor
from lorry_components.steps.evaluate.evaluation_report import PLOT_NAME, PREDICTIONS_NAME, EvaluationReport
from lorry_components.steps.evaluate.step import evaluate
from lorry_components.steps.gate.step import Decision, decide
from lorry_components.steps.prepare_data.step import load_part
from lorry_components.steps.register.step import register
from lorry_components.tasks.definition import find_task_type
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.adapters.stored_adapters import adapter_key
from lorry_registry.errors import AdapterRejectedError, BaseModelError, Fault, InvalidDataError
from lorry_registry.manifest import WEIGHTS_NAME
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import GateSpec

# One method of each family: what a method does by itself has tests of its own.
TRIED = ("full", "lora", "adapter-h", "p-tuning", "p-tuning-v2", "peft")

FindTrained = Callable[..., Any]


def promote(found: Any, registry: Registry) -> int:
    """Make a candidate the champion of its task."""
    judged = registry.ledger.read_state(found.spec.name).champion_version
    decision = Decision(passed=True, reasons=("a test",), judged_champion=judged)
    registration = register(
        resolve_task(found.spec),
        found.candidate,
        found.report,
        decision,
        registry=registry,
        index=None,
        details={},
    )
    return registration.event.version


def score(found: Any, registry: Registry, target: Path, **changes: Any) -> EvaluationReport:
    spec = found.spec.model_copy(update=changes)
    return evaluate(resolve_task(spec), found.data, found.candidate, target, registry=registry)


@pytest.mark.parametrize("method", TRIED)
@pytest.mark.parametrize("task", ["regression", "classification", "pair"])
def test_an_evaluation_says_how_good_a_candidate_is(
    trained: FindTrained, registry: Registry, task: str, method: str, tmp_path: Path
) -> None:
    found = trained(task, method)
    report = score(found, registry, tmp_path / "evaluation")
    task_type, examples = find_task_type(found.spec), load_part(found.data, "test")
    assert report.evaluation.split == "test"
    assert report.evaluation.examples == len(examples)
    assert report.evaluation.primary == task_type.primary
    assert set(report.evaluation.metrics) == set(task_type.metrics)
    assert report.champion is None
    assert report.seconds > 0
    assert EvaluationReport.load(tmp_path / "evaluation") == report
    # The predictions that were written give the metrics that were written.
    lines = (tmp_path / "evaluation" / PREDICTIONS_NAME).read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["text"] for row in rows] == [example.row["text"] for example in examples]
    assert [row["label"] for row in rows] == [example.label for example in examples]
    assert ("text_pair" in rows[0]) == (task == "pair")
    scores = task_type.compute_metrics(
        list(task_type.metrics), [row["label"] for row in rows], [row["prediction"] for row in rows]
    )
    for name, metric in report.evaluation.metrics.items():
        assert metric.value == scores[name]
        assert metric.low <= metric.high
    assert (tmp_path / "evaluation" / PLOT_NAME).read_bytes().startswith(b"\x89PNG")


def test_an_evaluation_is_the_same_twice(trained: FindTrained, registry: Registry, tmp_path: Path) -> None:
    found = trained()
    first, second = (score(found, registry, tmp_path / name) for name in ("first", "second"))
    assert first.model_dump(exclude={"seconds"}) == second.model_dump(exclude={"seconds"})
    files = [(tmp_path / name / PREDICTIONS_NAME).read_bytes() for name in ("first", "second")]
    assert files[0] == files[1]


@pytest.mark.parametrize("method", TRIED)
def test_the_probe_is_the_same_twice_even_if_the_base_lacks_its_pooler(
    trained: FindTrained, registry: Registry, method: str, tmp_path: Path
) -> None:
    # It is part of the manifest, whose digest is the adapter's id.
    found = trained("regression", method, base="bert-without-pooler")
    assert score(found, registry, tmp_path / "again").probe == found.report.probe


def test_the_metrics_are_those_of_the_task(trained: FindTrained, registry: Registry, tmp_path: Path) -> None:
    found = trained()
    section = found.spec.evaluate.model_copy(update={"primary": "spearman", "metrics": ("rmse",)})
    report = score(found, registry, tmp_path / "evaluation", evaluate=section)
    assert report.evaluation.primary == "spearman"
    assert list(report.evaluation.metrics) == ["spearman", "rmse"]


def test_f1_is_of_the_class_that_the_task_names(
    trained: FindTrained, registry: Registry, tmp_path: Path
) -> None:
    champion, candidate = trained("classification", seed=0), trained("classification", seed=1)
    first = champion.summary.labels[0]
    section = champion.spec.evaluate.model_copy(update={"primary": "f1", "positive": first})
    report = score(champion, registry, tmp_path / "first", evaluate=section)
    assert report.evaluation.positive == first
    assert decide(GateSpec(), report).reasons[0].startswith(f"f1 of {first} 0.")
    usual = score(
        champion,
        registry,
        tmp_path / "usual",
        evaluate=section.model_copy(update={"positive": None}),
    )
    assert usual.evaluation.positive is None
    assert usual.evaluation.headline.value != report.evaluation.headline.value

    # A champion's predictions are scored as the candidate's are.
    decision = Decision(passed=True, reasons=(), judged_champion=None)
    register(
        resolve_task(champion.spec),
        champion.candidate,
        usual,
        decision,
        registry=registry,
        index=None,
        details={},
    )
    found = score(candidate, registry, tmp_path / "candidate", evaluate=section).champion
    assert found is not None
    assert found.value == pytest.approx(report.evaluation.headline.value)
    # What was recorded of it is the mean over all classes.
    assert found.recorded is None


def test_progress_is_told_row_by_row(trained: FindTrained, registry: Registry, tmp_path: Path) -> None:
    found = trained()
    told: list[tuple[int, int]] = []

    def note(done: int, total: int, note: str = "") -> None:
        told.append((done, total))

    evaluate(
        resolve_task(found.spec),
        found.data,
        found.candidate,
        tmp_path / "e",
        registry=registry,
        progress=note,
    )
    rows = len(load_part(found.data, "test"))
    assert told[-1] == (rows, rows)


# The champion


def test_a_candidate_is_compared_with_the_champion_on_the_same_rows(
    trained: FindTrained, registry: Registry, tmp_path: Path
) -> None:
    champion, candidate = trained(seed=0), trained(seed=1)
    version = promote(champion, registry)
    report = score(candidate, registry, tmp_path / "evaluation")
    assert report.champion is not None
    assert report.champion.version == version == 1
    assert report.champion.problem == ""
    assert report.champion.value == pytest.approx(champion.report.evaluation.headline.value)
    assert report.champion.recorded == champion.report.evaluation.headline.value
    assert report.champion.recorded_low == champion.report.evaluation.headline.low
    assert report.champion.gain == pytest.approx(
        report.evaluation.headline.value - champion.report.evaluation.headline.value
    )
    assert report.champion.confidence is not None
    assert 0.0 <= report.champion.confidence <= 1.0


def test_the_champion_itself_is_no_gain(trained: FindTrained, registry: Registry, tmp_path: Path) -> None:
    promote(trained(), registry)
    report = score(trained(), registry, tmp_path / "evaluation")
    assert report.champion is not None
    assert (report.champion.gain, report.champion.confidence) == (0.0, 0.5)


def test_a_challenger_is_not_compared_with(trained: FindTrained, registry: Registry, tmp_path: Path) -> None:
    found = trained(seed=1)
    refused = Decision(passed=False, reasons=("too weak",), judged_champion=None)
    register(
        resolve_task(found.spec),
        found.candidate,
        found.report,
        refused,
        registry=registry,
        index=None,
        details={},
    )
    assert score(trained(), registry, tmp_path / "evaluation").champion is None


def test_a_champion_by_another_method_is_compared_with(
    trained: FindTrained, registry: Registry, tmp_path: Path
) -> None:
    promote(trained("regression", "full"), registry)
    report = score(trained("regression", "p-tuning"), registry, tmp_path / "evaluation")
    assert report.champion is not None
    assert report.champion.confidence is not None


def test_the_record_of_a_champion_stands_in_when_its_base_is_gone(
    trained: FindTrained, registry: Registry, tmp_path: Path, make_base: Callable[..., Path]
) -> None:
    champion = trained()
    base = make_base("vanishing")
    identity = champion.summary.base.model_copy(update={"model": str(base)})
    moved = tmp_path / "moved"
    shutil.copytree(champion.candidate, moved)
    champion.summary.model_copy(update={"base": identity}).save(moved)
    shutil.rmtree(base)
    decision = Decision(passed=True, reasons=(), judged_champion=None)
    register(
        resolve_task(champion.spec),
        moved,
        champion.report,
        decision,
        registry=registry,
        index=None,
        details={},
    )
    report = score(trained(seed=1), registry, tmp_path / "evaluation")
    assert report.champion is not None
    assert report.champion.value is None
    assert report.champion.confidence is None
    assert report.champion.recorded == champion.report.evaluation.headline.value
    assert "there is no such folder" in report.champion.problem
    assert "\n" not in report.champion.problem
    assert report.champion.gain == pytest.approx(
        report.evaluation.headline.value - champion.report.evaluation.headline.value
    )


def test_a_champion_of_another_kind_is_compared_with_nothing(
    trained: FindTrained, registry: Registry, tmp_path: Path
) -> None:
    former = trained("classification")
    spec = trained().spec
    renamed = former.spec.model_copy(update={"name": spec.name})
    decision = Decision(passed=True, reasons=(), judged_champion=None)
    register(
        resolve_task(renamed),
        former.candidate,
        former.report,
        decision,
        registry=registry,
        index=None,
        details={},
    )
    report = score(trained(), registry, tmp_path / "evaluation")
    assert report.champion is not None
    assert (report.champion.recorded, report.champion.gain) == (None, None)
    judged = decide(GateSpec(minimum=-1.0, minimum_gain=0.5, baseline="none"), report)
    # Who reads labels would get numbers.
    assert not judged.passed
    assert judged.reasons[-1] == (
        "v1 is a text-classification, and this is a regression; lorry promote decides by hand"
    )
    assert judged.against == judged.reasons[-1:]


def test_the_record_of_a_champion_stands_in_when_it_is_damaged(
    trained: FindTrained, registry: Registry, store: LocalStore, tmp_path: Path
) -> None:
    promote(trained(), registry)
    champion = registry.resolve("tiny-regression")
    path = store.root / adapter_key(champion.adapter_id) / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    report = score(trained(seed=1), registry, tmp_path / "evaluation")
    assert report.champion is not None
    assert report.champion.confidence is None
    assert WEIGHTS_NAME in report.champion.problem


def test_a_champion_of_another_kind_cannot_be_compared(
    trained: FindTrained, registry: Registry, tmp_path: Path
) -> None:
    # The task became a classification, and kept its name.
    champion, candidate = trained("regression"), trained("classification")
    promote(champion, registry)
    report = score(candidate, registry, tmp_path / "evaluation", name="tiny-regression")
    assert report.champion is not None
    assert report.champion.confidence is None
    assert "it is a regression, and the task is a text-classification now" in report.champion.problem


@pytest.mark.parametrize(
    ("champion", "candidate", "problem"),
    [
        ("classification", "pair", "it reads one text a row, and the task has two texts now"),
        ("pair", "classification", "it reads two texts a row, and the task has one text now"),
    ],
)
def test_the_record_of_a_champion_of_other_columns_stands_in(
    trained: FindTrained,
    registry: Registry,
    champion: str,
    candidate: str,
    problem: str,
    tmp_path: Path,
) -> None:
    former, found = trained(champion), trained(candidate)
    promote(former, registry)
    report = score(found, registry, tmp_path / "evaluation", name=former.spec.name)
    assert report.champion is not None
    assert problem in report.champion.problem
    assert report.champion.changed_use == problem.replace("it reads", "v1 reads").replace(
        "the task has two texts now", "this reads two"
    ).replace("the task has one text now", "this reads one")
    assert not decide(GateSpec(baseline="none"), report).passed
    assert report.champion.value is None
    assert report.champion.recorded == former.report.evaluation.headline.value


def test_the_record_of_a_champion_that_refuses_the_rows_stands_in(
    trained: FindTrained, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(trained(), registry)
    predict = Predictor.predict_parts
    asked: list[Predictor] = []

    def refuse(self: Predictor, rows: Any, **options: Any) -> Any:
        # The candidate predicts first.
        asked.append(self)
        if self is not asked[0]:
            raise InvalidDataError("test", [Fault("row 1", "is too long for it")], todo="shorten it")
        return predict(self, rows, **options)

    found = trained(seed=1)
    task = resolve_task(found.spec)
    monkeypatch.setattr(Predictor, "predict_parts", refuse)
    report = evaluate(task, found.data, found.candidate, tmp_path / "evaluation", registry=registry)
    assert report.champion is not None
    assert "is too long for it" in report.champion.problem
    assert report.champion.gain is not None


def test_a_candidate_that_answers_all_rows_alike_is_remarked(
    trained: FindTrained, registry: Registry, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    found = trained("classification", "full")
    collapsed = tmp_path / "collapsed"
    shutil.copytree(found.candidate, collapsed)
    path = collapsed / "adapter" / WEIGHTS_NAME
    tensors = load_file(path)
    (bias,) = (name for name in tensors if name.endswith("classifier.bias"))
    tensors[bias][0] += 100.0
    save_file(tensors, path)
    target = tmp_path / "evaluation"
    report = evaluate(resolve_task(found.spec), found.data, collapsed, target, registry=registry)
    assert report.single_answer == found.summary.labels[0]
    decision = decide(found.spec.gate, EvaluationReport.load(target))
    assert any(report.single_answer in reason for reason in decision.reasons)
    # Remarked where the task asks for nothing, and refused where it does.
    assert decision.passed
    assert not decide(GateSpec(), EvaluationReport.load(target)).passed


# What is refused


def test_a_candidate_without_its_head_is_refused(
    trained: FindTrained, registry: Registry, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    found = trained("regression", "full")
    broken = tmp_path / "broken"
    shutil.copytree(found.candidate, broken)
    path = broken / "adapter" / WEIGHTS_NAME
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items() if "classifier" not in name}
    save_file(tensors, path)
    with pytest.raises(AdapterRejectedError, match="classifier"):
        evaluate(resolve_task(found.spec), found.data, broken, tmp_path / "evaluation", registry=registry)
    assert not (tmp_path / "evaluation").exists()


def test_a_base_that_changed_since_training_is_refused(
    trained: FindTrained, registry: Registry, tmp_path: Path
) -> None:
    found = trained()
    moved = tmp_path / "moved"
    shutil.copytree(found.candidate, moved)
    summary: TrainingSummary = found.summary
    identity = summary.base.model_copy(update={"fingerprint": "sha256:" + "3" * 64})
    summary.model_copy(update={"base": identity}).save(moved)
    with pytest.raises(BaseModelError, match="the task expects sha256:333"):
        evaluate(resolve_task(found.spec), found.data, moved, tmp_path / "evaluation", registry=registry)


def test_a_report_is_strict(tmp_path: Path, trained: FindTrained) -> None:
    report: EvaluationReport = trained().report
    report.save(tmp_path)
    path = tmp_path / "evaluation.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"surprise": 1}))
    with pytest.raises(ValueError, match="surprise"):
        EvaluationReport.load(tmp_path)
    assert np.isfinite([metric.value for metric in report.evaluation.metrics.values()]).all()


def test_every_file_appears_whole(
    trained: FindTrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, placed = Path.replace, []

    def note(self: Path, target: Path) -> Path:
        # The probe's predictions lie in a scratch folder of their own.
        placed.extend([target.name] if target.parent.name == "evaluation" else [])
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", note)
    found, target = trained(), tmp_path / "evaluation"
    evaluate(resolve_task(found.spec), found.data, found.candidate, target, registry=None)
    assert sorted(placed) == ["evaluation.json", "predictions.jsonl", "predictions.png"]
    assert sorted(path.name for path in target.iterdir()) == sorted(placed)
    assert (target / "predictions.png").read_bytes().startswith(b"\x89PNG")
