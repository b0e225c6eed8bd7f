"""The gate: who becomes the champion, and why."""

import json
from pathlib import Path
from typing import Any

import pytest

from lorry_components.steps.evaluate.evaluation_report import ChampionComparison, EvaluationReport
from lorry_components.steps.gate.step import Decision, decide
from lorry_registry.manifest import Evaluation, MetricValue, Probe
from lorry_registry.task_spec import GateSpec

CHAMPION = ChampionComparison(
    version=3, adapter_id="sha256:" + "a" * 64, recorded=0.75, value=0.74, gain=0.06, confidence=0.97
)
UNLOADABLE = ChampionComparison(
    version=3, adapter_id="sha256:" + "a" * 64, recorded=0.75, gain=0.05, problem="its base is gone"
)


def judge(
    value: float = 0.8,
    champion: ChampionComparison | None = None,
    single_answer: str | None = None,
    **gate: Any,
) -> Decision:
    metric = MetricValue(value=value, low=value - 0.05, high=value + 0.05)
    report = EvaluationReport(
        evaluation=Evaluation(split="test", examples=100, primary="pearson", metrics={"pearson": metric}),
        probe=Probe(rows=(), outputs=(), base_outputs=()),
        champion=champion,
        seconds=1.0,
        single_answer=single_answer,
    )
    return decide(GateSpec(**gate), report)


@pytest.mark.parametrize(
    ("value", "minimum", "passed", "reason"),
    [
        (0.8, None, True, "pearson 0.800; no minimum is asked for"),
        (0.8, 0.7, True, "pearson 0.800 reaches the minimum 0.700"),
        (0.7, 0.7, True, "pearson 0.700 reaches the minimum 0.700"),
        (0.699, 0.7, False, "pearson 0.699 is below the minimum 0.700"),
        (-0.2, 0.0, False, "pearson -0.200 is below the minimum 0.000"),
        (-0.2, None, True, "pearson -0.200; no minimum is asked for"),
    ],
)
def test_the_first_adapter_needs_the_minimum_only(
    value: float, minimum: float | None, passed: bool, reason: str
) -> None:
    decision = judge(value, minimum=minimum, minimum_gain=0.5)
    assert decision.passed == passed
    assert decision.reasons == (reason, "it is the first: there is no champion to beat")
    assert decision.judged_champion is None


@pytest.mark.parametrize(
    ("confidence", "needed", "passed"),
    [(0.97, 0.95, True), (0.95, 0.95, True), (0.949, 0.95, False), (0.6, 0.5, True), (0.0, 0.5, False)],
)
def test_a_gain_has_to_be_sure_enough(confidence: float, needed: float, passed: bool) -> None:
    champion = CHAMPION.model_copy(update={"confidence": confidence})
    decision = judge(champion=champion, confidence=needed, minimum_gain=0.01)
    assert decision.passed == passed
    assert decision.judged_champion == 3
    assert decision.reasons[1].startswith("+0.060 over v3 on the same rows; a gain above 0.01 in ")
    assert f"{confidence:.1%} of resamples" in decision.reasons[1]
    assert f"{needed:.1%} {'are' if passed else 'would be'} needed" in decision.reasons[1]


def test_one_answer_for_all_rows_is_remarked() -> None:
    decision = judge(single_answer="spam")
    assert decision.passed
    assert decision.reasons[1] == "it answers every test row with 'spam'"


def test_a_gain_does_not_make_up_for_the_minimum() -> None:
    decision = judge(0.8, CHAMPION, minimum=0.9)
    assert not decision.passed
    assert len(decision.reasons) == 2
    assert "is below the minimum" in decision.reasons[0]


def test_the_minimum_does_not_make_up_for_a_gain() -> None:
    decision = judge(0.8, CHAMPION.model_copy(update={"gain": -0.1, "confidence": 0.01}), minimum=0.1)
    assert not decision.passed
    assert decision.reasons[1].startswith("-0.100 over v3")


@pytest.mark.parametrize(
    ("gain", "minimum_gain", "passed", "told"),
    [
        (0.05, 0.0, True, "it beats the recorded 0.750 of v3 by more than 0 (+0.050)"),
        (0.05, 0.04, True, "it beats the recorded 0.750 of v3 by more than 0.04 (+0.050)"),
        (0.05, 0.05, False, "it does not beat the recorded 0.750 of v3 by more than 0.05 (+0.050)"),
        (0.0, 0.0, False, "it does not beat the recorded 0.750 of v3 by more than 0 (+0.000)"),
        (-0.1, 0.0, False, "it does not beat the recorded 0.750 of v3 by more than 0 (-0.100)"),
    ],
)
def test_a_champion_that_cannot_be_loaded_is_judged_by_its_record(
    gain: float, minimum_gain: float, passed: bool, told: str
) -> None:
    champion = UNLOADABLE.model_copy(update={"gain": gain})
    decision = judge(champion=champion, minimum_gain=minimum_gain)
    assert decision.passed == passed
    assert decision.reasons[1] == f"{told}; v3 could not be loaded: its base is gone"
    assert decision.judged_champion == 3


def test_a_decision_is_kept_whole(tmp_path: Path) -> None:
    decision = judge(champion=CHAMPION, minimum=0.5)
    decision.save(tmp_path / "new" / "folder")
    assert Decision.load(tmp_path / "new" / "folder") == decision
    document = json.loads((tmp_path / "new" / "folder" / "decision.json").read_text())
    assert document["passed"] is True
    assert document["judged_champion"] == 3


def test_a_decision_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    former = judge(value=0.9, minimum=0.5)
    former.save(tmp_path)

    def fail(self: Path, content: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(content[:10])
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        judge(value=0.1, minimum=0.5).save(tmp_path)
    assert Decision.load(tmp_path) == former
    assert [path.name for path in tmp_path.iterdir()] == ["decision.json"]
