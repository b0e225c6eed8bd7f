"""The gate: who becomes the champion, and why."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorry_components.steps.evaluate.evaluation_report import (
    ChampionComparison,
    EvaluationReport,
    FirstTrial,
)
from lorry_components.steps.gate.step import Decision, build_challenge, decide, recount
from lorry_registry.manifest import Baseline, Evaluation, MetricValue, Probe
from lorry_registry.tasks.task_spec import GateSpec

CHAMPION = ChampionComparison(
    version=3, adapter_id="sha256:" + "a" * 64, recorded=0.75, value=0.74, gain=0.06, confidence=0.97
)
UNLOADABLE = ChampionComparison(
    version=3, adapter_id="sha256:" + "a" * 64, recorded=0.75, gain=0.05, problem="its base is gone"
)


TESTED = CHAMPION.model_copy(update={"examples": 100, "test_rows": "sha256:" + "b" * 64})


def judge(
    value: float = 0.8,
    champion: ChampionComparison | None = None,
    single_answer: str | None = None,
    baselines: tuple[Baseline, ...] = (),
    first: FirstTrial | None = None,
    **gate: Any,
) -> Decision:
    metric = MetricValue(value=value, low=value - 0.05, high=value + 0.05)
    report = EvaluationReport(
        evaluation=Evaluation(
            split="test",
            examples=100,
            primary="pearson",
            metrics={"pearson": metric},
            baselines=baselines,
        ),
        probe=Probe(rows=(), outputs=(), base_outputs=()),
        champion=champion,
        first=first,
        seconds=1.0,
        single_answer=single_answer,
    )
    return decide(GateSpec(**gate), report)


@pytest.mark.parametrize(
    ("value", "minimum", "passed", "reason"),
    [
        (0.8, None, True, "pearson 0.800; no minimum set"),
        (0.8, 0.7, True, "pearson 0.800 reaches the minimum 0.700"),
        (0.7, 0.7, True, "pearson 0.700 reaches the minimum 0.700"),
        (0.699, 0.7, False, "pearson 0.699 is below the minimum 0.700"),
        (-0.2, 0.0, False, "pearson -0.200 is below the minimum 0.000"),
        (-0.2, None, True, "pearson -0.200; no minimum set"),
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
    told = f"above 0.01 with confidence {confidence:.1%}, {needed:.1%} needed"
    assert decision.reasons[1].startswith(f"+0.060 over v3 on the same rows; {told}")


@pytest.mark.parametrize(("baseline", "passed"), [("trivial", False), ("none", True)])
def test_one_answer_for_all_rows_is_refused_unless_the_task_says_otherwise(
    baseline: str, passed: bool
) -> None:
    decision = judge(single_answer="spam", baseline=baseline)
    assert decision.passed == passed
    assert decision.reasons[1] == "it answers every test row with 'spam'"


# Trivial baselines


MAJORITY = Baseline(name="majority class", value=0.68, gain=0.12, confidence=0.98, examples=100)
COPY = Baseline(name="copy of the input", value=0.6, gain=0.2, confidence=0.94, examples=100)


def test_what_is_better_than_what_costs_nothing_passes_and_says_by_how_much() -> None:
    decision = judge(baselines=(COPY.model_copy(update={"confidence": 1.0}), MAJORITY))
    assert decision.passed
    assert decision.reasons[1] == (
        "significantly better than the majority class at 0.680: +0.120, above 0 with confidence 98.0%, "
        "95.0% needed"
    )


def test_all_that_costs_nothing_has_to_be_beaten() -> None:
    # The copy is worse than the majority, but it differs more from row to row.
    decision = judge(baselines=(MAJORITY, COPY))
    assert not decision.passed
    assert decision.reasons[1] == (
        "not significantly better than the copy of the input at 0.600: +0.200, above 0 with "
        "confidence 94.0%, 95.0% needed"
    )
    assert judge(baselines=(MAJORITY, COPY), confidence=0.9).passed
    unasked = judge(baselines=(MAJORITY, COPY), baseline="none")
    assert (unasked.passed, len(unasked.reasons)) == (True, 2)


def test_a_gain_over_the_champion_does_not_make_up_for_a_baseline() -> None:
    worse = MAJORITY.model_copy(update={"gain": -0.1, "confidence": 0.0})
    assert not judge(champion=CHAMPION, baselines=(worse,)).passed


# What programs that use the champion rely on


def test_a_champion_whose_users_would_be_let_down_is_replaced_by_hand_only() -> None:
    lost = TESTED.model_copy(
        update={"confidence": 1.0, "changed_use": "v3 knows the class 'spam', and this does not"}
    )
    decision = judge(champion=lost)
    assert not decision.passed
    assert decision.reasons[1] == (
        "v3 knows the class 'spam', and this does not; lorry promote decides by hand"
    )
    # How good it is, is told all the same, and counts as a challenge.
    assert decision.reasons[-1].startswith("+0.060 over v3")
    assert decision.against == decision.reasons[1:2]
    assert build_challenge(GateSpec(), decision) is not None


def test_a_champion_that_cannot_be_compared_at_all_is_replaced_by_hand_only() -> None:
    unknown = UNLOADABLE.model_copy(update={"recorded": None, "gain": None})
    decision = judge(champion=unknown)
    assert not decision.passed
    assert decision.reasons[1] == (
        "it cannot be compared with v3, for which this metric is not known: its base is gone; "
        "lorry promote decides by hand"
    )


# How often a first champion was tried


def try_first(earlier: int, confidence: float = 0.98) -> FirstTrial:
    baselines = (MAJORITY.model_copy(update={"confidence": confidence}),)
    return FirstTrial(test_rows=TESTED.test_rows, earlier=earlier, baselines=baselines)


@pytest.mark.parametrize(
    ("earlier", "confidence", "passed", "told"),
    [
        (0, 0.97, True, "97.0% needed, so that luck promotes 5.0% at most, however many are tried"),
        (
            0,
            0.969,
            False,
            "97.0% needed, so that luck promotes 5.0% at most, however many are tried",
        ),
        (1, 0.98, False, "99.2% needed, since one adapter has been tried on these rows before"),
        (9, 0.9998, True, "99.970% needed, since 9 adapters have been tried on these rows before"),
    ],
)
def test_a_first_champion_has_to_be_surer_the_more_were_tried(
    earlier: int, confidence: float, passed: bool, told: str
) -> None:
    decision = judge(first=try_first(earlier, confidence), baselines=(MAJORITY,))
    assert decision.passed == passed
    assert decision.reasons[1].endswith(told)
    # The champion's own test is enough where there is one, and who asks for no baseline has no test.
    assert judge(champion=CHAMPION, first=try_first(9), baselines=(MAJORITY,)).passed
    unasked = judge(first=try_first(9), baseline="none")
    assert unasked.passed
    assert build_challenge(GateSpec(baseline="none"), unasked) is None


def test_a_first_champion_is_judged_again_by_the_number_that_the_ledger_knows() -> None:
    decision = judge(first=try_first(0), baselines=(MAJORITY,))
    assert decision.passed
    challenge = build_challenge(GateSpec(), decision)
    assert challenge is not None
    assert challenge.describe() == {"champion": None, "test_rows": TESTED.test_rows}
    assert challenge.judge(0) == (True, decision.reasons)
    passed, reasons = challenge.judge(3)
    assert not passed
    assert (reasons[0], reasons[2]) == (decision.reasons[0], decision.reasons[2])
    assert reasons[1].startswith("not significantly better than the majority class")
    assert reasons[1].endswith("since 3 adapters have been tried on these rows before")


def test_of_ten_useless_adapters_luck_promotes_one_in_one_case_of_twenty_at_most() -> None:
    rows, cases, tries = 100, 1500, 10
    generator = np.random.default_rng(0)

    @functools.cache
    def measure(wins: int, losses: int) -> float:
        shares = [wins / rows, losses / rows, 1 - (wins + losses) / rows]
        drawn = np.random.default_rng(1).multinomial(rows, shares, size=10_000)
        return float(np.mean(drawn[:, 0] > drawn[:, 1]))

    @functools.cache
    def passes(place: int, confidence: float) -> bool:
        return judge(first=try_first(place, confidence)).passed

    promoted = {"counted": 0, "uncounted": 0}
    for _ in range(cases):
        # Labels without a meaning: the majority class is right by chance, and so is each adapter.
        majority, adapters = generator.random(rows) < 0.5, generator.random((tries, rows)) < 0.5
        confidences = [
            measure(int(np.sum(right & ~majority)), int(np.sum(majority & ~right))) for right in adapters
        ]
        for name, places in (("counted", range(tries)), ("uncounted", [0] * tries)):
            promoted[name] += any(map(passes, places, confidences))
    assert promoted["counted"] / cases < 0.05
    # Tightened once for all, as if each were the first.
    assert promoted["uncounted"] / cases > 0.1


# The rows that are shared with the champion


def test_too_few_shared_rows_refuse_whatever_the_gain_is() -> None:
    sure = TESTED.model_copy(update={"examples": 29, "confidence": 1.0})
    decision = judge(champion=sure)
    assert not decision.passed
    assert decision.reasons[-1] == (
        "29 test rows cannot tell it from v3: 30 are needed; lorry promote decides by hand"
    )
    assert judge(champion=sure, minimum_rows=29).passed
    assert judge(champion=sure.model_copy(update={"examples": 30})).passed


def test_no_shared_row_at_all_is_told() -> None:
    nothing = TESTED.model_copy(
        update={"examples": 0, "left_out": 1, "value": None, "gain": None, "confidence": None}
    )
    decision = judge(champion=nothing, minimum_rows=1)
    assert not decision.passed
    assert decision.reasons[1:] == (
        "1 test row left out, which v3 was trained on",
        "0 test rows cannot tell it from v3: 1 are needed; lorry promote decides by hand",
    )
    assert decision.comparison is None


def test_few_rows_refuse_a_comparison_with_a_record_too() -> None:
    assert judge(champion=UNLOADABLE, minimum_rows=100).passed
    decision = judge(champion=UNLOADABLE, minimum_rows=101)
    assert not decision.passed
    assert decision.reasons[1] == "100 test rows cannot tell it from v3: 101 are needed"


def test_what_was_left_out_and_what_is_not_known_is_told() -> None:
    decision = judge(champion=TESTED.model_copy(update={"left_out": 1234}))
    assert decision.reasons[1] == "1,234 test rows left out, which v3 was trained on"
    decision = judge(champion=TESTED.model_copy(update={"unknown_rows": "none were recorded"}))
    assert decision.reasons[1] == (
        "which rows v3 was trained on is not known (none were recorded): some may be among the test rows"
    )


def test_a_champion_that_does_worse_than_when_it_was_registered_is_told_with_both_values() -> None:
    fallen = TESTED.model_copy(update={"value": 0.538, "recorded": 0.647, "recorded_low": 0.601})
    told = judge(champion=fallen).reasons[1]
    assert told.startswith("v3 has 0.538 on these rows, and had 0.647 when it was registered: ")
    assert "below its 95 % interval of that time (0.601 and more) usually means that the data have" in told
    # Within that interval, chance explains it.
    near = fallen.model_copy(update={"recorded_low": 0.5})
    assert judge(champion=near).reasons[1] == (
        "v3 has 0.538 on these rows, and had 0.647 when it was registered"
    )
    # On the same rows it does the same, and nothing is to be said.
    same = judge(champion=fallen.model_copy(update={"recorded": 0.5384}))
    assert not any("when it was registered" in reason for reason in same.reasons)
    # Too few rows to decide hide it from nobody.
    few = judge(champion=fallen.model_copy(update={"examples": 3}))
    assert any("0.647 when it was registered" in reason for reason in few.reasons)


@pytest.mark.parametrize(("confidence", "passed"), [(0.969, False), (0.97, True)])
def test_a_gain_over_a_record_has_to_be_sure_by_both_intervals(confidence: float, passed: bool) -> None:
    recorded = {"recorded_confidence": confidence, "test_rows": TESTED.test_rows}
    decision = judge(champion=UNLOADABLE.model_copy(update=recorded))
    assert decision.passed == passed
    assert decision.reasons[-1].startswith(
        f"by the intervals of both with confidence {confidence:.1%}, 97.0% needed"
    )
    if passed:
        counted = recount(GateSpec(), decision, 2)
        assert not counted.passed
        assert counted.reasons[-1].endswith("since 2 adapters have challenged v3 on these rows before")


# How often the champion was challenged


@pytest.mark.parametrize(
    ("earlier", "confidence", "passed", "told"),
    [
        (0, 0.970, True, "97.0% needed, so that luck promotes 5.0% at most, however many challenge v3"),
        (0, 0.969, False, "97.0% needed, so that luck promotes 5.0% at most"),
        (1, 0.991, False, "99.2% needed, since one adapter has challenged v3 on these rows before"),
        (1, 0.993, True, "99.2% needed, since one adapter has challenged v3 on these rows before"),
        (
            9,
            0.9996,
            False,
            "99.970% needed, since 9 adapters have challenged v3 on these rows before",
        ),
        (9, 0.9998, True, "above 0 with confidence 99.980%, 99.970% needed, since 9 adapters"),
    ],
)
def test_who_comes_later_has_to_be_surer(earlier: int, confidence: float, passed: bool, told: str) -> None:
    decision = judge(champion=TESTED.model_copy(update={"earlier": earlier, "confidence": confidence}))
    assert decision.passed == passed
    assert told in decision.reasons[-1]


def test_a_decision_is_taken_again_by_the_number_that_the_ledger_knows() -> None:
    gate = GateSpec()
    decision = judge(champion=TESTED.model_copy(update={"confidence": 0.98, "left_out": 5}))
    assert decision.passed
    remarked = decision.model_copy(update={"reasons": ("a remark", *decision.reasons)})
    counted = recount(gate, remarked, 3)
    assert not counted.passed
    assert counted.reasons[0] == "a remark"
    assert counted.reasons[1:-1] == decision.reasons[:-1]
    assert counted.reasons[-1].endswith("since 3 adapters have challenged v3 on these rows before")
    assert recount(gate, remarked, 0) == remarked
    refused = decision.model_copy(update={"passed": False})
    assert not recount(gate, refused, 0).passed
    challenge = build_challenge(gate, decision)
    assert challenge is not None
    assert challenge.describe() == {"champion": 3, "test_rows": TESTED.test_rows}
    assert challenge.judge(0) == (True, decision.reasons)
    assert challenge.judge(3)[0] is False


@given(
    confidence=st.floats(0.0, 1.0),
    needed=st.floats(0.5, 0.999),
    earlier=st.integers(0, 50),
    more=st.integers(1, 50),
)
def test_nobody_passes_more_easily_because_others_have_tried(
    confidence: float, needed: float, earlier: int, more: int
) -> None:
    gate = GateSpec(confidence=needed)
    decision = judge(
        champion=TESTED.model_copy(update={"confidence": confidence, "earlier": earlier}), confidence=needed
    )
    later = recount(gate, decision, earlier + more)
    assert decision.passed or not later.passed
    # To count again is to judge again.
    anew = judge(
        champion=TESTED.model_copy(update={"confidence": confidence, "earlier": earlier + more}),
        confidence=needed,
    )
    assert later.reasons == anew.reasons
    assert later.passed == (decision.passed and anew.passed)


def test_only_a_test_against_a_champion_is_a_challenge() -> None:
    assert build_challenge(GateSpec(), judge()) is None
    assert build_challenge(GateSpec(), judge(champion=UNLOADABLE)) is None


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
