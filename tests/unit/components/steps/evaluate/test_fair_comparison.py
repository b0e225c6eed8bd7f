"""The comparison with the champion is on rows that it has not seen, and knows how often it was challenged."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.steps.evaluate.confidence import compare_intervals
from lorry_components.steps.evaluate.evaluation_report import ChampionComparison, EvaluationReport
from lorry_components.steps.evaluate.step import evaluate
from lorry_components.steps.gate.step import Decision, decide
from lorry_components.steps.prepare_data.step import load_part, prepare_data
from lorry_components.steps.register.step import register
from lorry_components.steps.runtime.registered_candidate import RegisteredCandidate
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.manifest import MetricValue
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import GateSpec

FindTrained = Callable[..., Any]


def enter(found: Any, registry: Registry, decision: Decision | None = None) -> int:
    """Register a candidate; it is promoted unless a decision says otherwise."""
    judged = registry.ledger.read_state(found.spec.name).champion_version
    decision = decision or Decision(passed=True, reasons=("a test",), judged_champion=judged)
    return register(
        resolve_task(found.spec),
        found.candidate,
        found.report,
        decision,
        registry=registry,
        index=None,
        details={},
    ).event.version


def divide_anew(make_spec: Callable[..., Any], folder: Path, *, seed: int = 5) -> tuple[Any, Path]:
    """Return the task with its data divided by another seed."""
    split = {"validation": 0.15, "test": 0.5, "seed": seed}
    spec = make_spec("classification", data={"split": split})
    prepare_data(resolve_task(spec), folder)
    return spec, folder


def compare(
    spec: Any, data: Path, found: Any, registry: Registry, target: Path
) -> tuple[EvaluationReport, ChampionComparison]:
    report = evaluate(resolve_task(spec), data, found.candidate, target, registry=registry)
    assert report.champion is not None
    return report, report.champion


def test_rows_that_the_champion_was_trained_on_are_left_out(
    trained: FindTrained, make_spec: Callable[..., Any], registry: Registry, tmp_path: Path
) -> None:
    champion, candidate = trained("classification"), trained("classification", seed=1)
    enter(champion, registry)
    spec, data = divide_anew(make_spec, tmp_path / "data")
    report, found = compare(spec, data, candidate, registry, tmp_path / "evaluation")
    known = {example.key for example in load_part(champion.data, "train")}
    test = [example.key for example in load_part(data, "test")]
    seen = sum(key in known for key in test)
    assert 0.5 * len(test) < seen < len(test)
    assert (found.left_out, found.examples, found.unknown_rows) == (seen, len(test) - seen, "")
    # Only the comparison is about fewer rows.
    assert report.evaluation.examples == len(test)
    decision = decide(GateSpec(minimum_rows=1, baseline="none"), report)
    assert f"{seen} test rows left out, which v1 was trained on" in decision.reasons
    assert not decide(GateSpec(minimum_rows=len(test) - seen + 1), report).passed


def test_on_the_champions_own_test_rows_nothing_is_left_out(
    trained: FindTrained, registry: Registry, tmp_path: Path
) -> None:
    champion, candidate = trained("classification"), trained("classification", seed=1)
    enter(champion, registry)
    report, found = compare(champion.spec, champion.data, candidate, registry, tmp_path / "evaluation")
    assert (found.left_out, found.examples) == (0, report.evaluation.examples)


def test_a_champion_that_was_trained_on_all_test_rows_cannot_be_beaten_by_a_test(
    trained: FindTrained, registry: Registry, tmp_path: Path
) -> None:
    champion, candidate = trained("classification"), trained("classification", seed=1)
    enter(champion, registry)
    data = tmp_path / "data"
    shutil.copytree(champion.data, data)
    # The training rows under the name of the test rows.
    shutil.copyfile(data / "train.parquet", data / "test.parquet")
    card = (data / "data_card.json").read_text()
    digests = {part: load_card_digest(champion.data, part) for part in ("train", "test")}
    (data / "data_card.json").write_text(card.replace(digests["test"], digests["train"]))
    report, found = compare(champion.spec, data, candidate, registry, tmp_path / "evaluation")
    assert (found.examples, found.value, found.gain, found.confidence) == (0, None, None, None)
    assert not decide(GateSpec(minimum_rows=1, baseline="none"), report).passed


def load_card_digest(folder: Path, part: str) -> str:
    from lorry_components.data.prepared import load_card

    return {str(name): split.digest for name, split in load_card(folder).splits.items()}[part]


def test_a_damaged_list_is_told_and_the_champion_is_judged_with_what_is_known(
    trained: FindTrained, registry: Registry, store: LocalStore, tmp_path: Path
) -> None:
    champion, candidate = trained("classification"), trained("classification", seed=1)
    enter(champion, registry)
    (path,) = store.root.rglob("row-fingerprints/*.json")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b" ")
    _, found = compare(champion.spec, champion.data, candidate, registry, tmp_path / "evaluation")
    assert found.unknown_rows == "its list of row fingerprints was changed"
    assert found.confidence is not None
    ((_, error),) = list(registry.verify_task(champion.spec.name))
    assert error is not None
    assert "row fingerprints was changed" in error.what


def test_challengers_on_the_same_rows_are_counted(
    trained: FindTrained, make_spec: Callable[..., Any], registry: Registry, tmp_path: Path
) -> None:
    champion = trained("classification")
    enter(champion, registry)
    for seed in (1, 2, 3):
        candidate = trained("classification", seed=seed)
        report, found = compare(
            champion.spec, champion.data, candidate, registry, tmp_path / f"evaluation-{seed}"
        )
        assert found.earlier == seed - 1
        decision = decide(champion.spec.gate, report).model_copy(update={"passed": False})
        assert enter(candidate, registry, decision) == seed + 1
    # One that is judged anew keeps its place: neither it nor who came later has tried before it.
    second = registry.list_versions(champion.spec.name)[1]
    RegisteredCandidate(version=2, adapter_id=second.adapter_id).save(tmp_path / "registered")
    renewed = evaluate(
        resolve_task(champion.spec),
        champion.data,
        tmp_path / "registered",
        tmp_path / "renewed",
        registry=registry,
    )
    assert renewed.champion is not None
    assert renewed.champion.earlier == 0
    spec, data = divide_anew(make_spec, tmp_path / "data")
    _, found = compare(spec, data, trained("classification", seed=4), registry, tmp_path / "other-rows")
    assert found.earlier == 0


def test_what_lies_on_a_record_is_as_sure_as_both_intervals_are_narrow() -> None:
    record = MetricValue(value=0.7, low=0.65, high=0.75)

    def compare_with(value: float, width: float, minimum_gain: float = 0.0) -> float:
        candidate = MetricValue(value=value, low=value - width, high=value + width)
        return compare_intervals(candidate, record, minimum_gain=minimum_gain)

    assert compare_with(0.7, 0.05) == pytest.approx(0.5)
    # 1.96 standard deviations of the difference.
    assert compare_with(0.7 + 0.05 * 2**0.5, 0.05) == pytest.approx(0.975)
    assert compare_with(0.8 + 0.05 * 2**0.5, 0.05, minimum_gain=0.1) == pytest.approx(0.975)
    assert compare_with(0.75, 0.0) > compare_with(0.75, 0.05) > compare_with(0.75, 0.2) > 0.5
    point = MetricValue(value=0.7, low=0.7, high=0.7)
    assert [compare_intervals(point, point, minimum_gain=gain) for gain in (0.0, -0.1)] == [0.0, 1.0]
