"""The gate as a pure function."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from lorry_components.steps.evaluate.evaluation_report import (
    ChampionComparison,
    EvaluationReport,
    FirstTrial,
)
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.ledger.alpha_spending import Challenge, tighten_confidence
from lorry_registry.manifest import Baseline, Evaluation
from lorry_registry.tasks.task_spec import GateSpec
from lorry_registry.text.sizes import format_probability

DECISION_NAME = "decision.json"

# Less is not seen in three decimals.
_LEAST_SHOWN = 0.0005

_Judgement = tuple[bool, str]


class Decision(BaseModel):
    """Whether a candidate becomes the champion, and why.

    Attributes:
        passed: Whether it does.
        reasons: Why, in sentences.
        judged_champion: The version of the champion that it was compared with; None: there was none.
        comparison: The test against that champion; None: there was none, or it could not be tested.
        against: Those of the reasons that speak against it.
        first: The test against the trivial baseline, where there was no champion.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    passed: bool
    reasons: tuple[str, ...]
    judged_champion: int | None
    comparison: ChampionComparison | None = None
    against: tuple[str, ...] = ()
    first: FirstTrial | None = None

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_whole_text(folder / DECISION_NAME, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it from a folder."""
        return cls.model_validate_json((folder / DECISION_NAME).read_text("utf-8"))


def decide(gate: GateSpec, report: EvaluationReport) -> Decision:
    """Judge a candidate: by its value, by a trivial baseline, and by its gain over the champion."""
    champion, asked = report.champion, gate.baseline != "none"
    first = report.first if champion is None and asked and report.first and report.first.baselines else None
    judged = [_judge_minimum(gate, report.evaluation)]
    if report.single_answer is not None:
        judged.append((not asked, f"it answers every test row with {report.single_answer!r}"))
    if first is not None:
        judged.append(_judge_first(gate, first))
    elif asked and report.evaluation.baselines:
        judged.append(_judge_baselines(report.evaluation.baselines, gate.confidence, ""))
    judged += _judge_gain(gate, champion, report.evaluation.examples)
    return Decision(
        passed=all(passed for passed, _ in judged),
        reasons=tuple(reason for _, reason in judged),
        judged_champion=champion.version if champion else None,
        comparison=champion if champion and _is_tested(champion) else None,
        against=tuple(reason for passed, reason in judged if not passed),
        first=first,
    )


def build_challenge(gate: GateSpec, decision: Decision) -> Challenge | None:
    """Return a decision as one that depends on how many others have tried; None: there was no such test."""
    champion, test_rows = None, ""
    if decision.comparison is not None:
        champion, test_rows = decision.comparison.version, decision.comparison.test_rows
    elif decision.first is not None:
        test_rows = decision.first.test_rows
    if not test_rows:
        return None

    def judge(earlier: int) -> tuple[bool, tuple[str, ...]]:
        counted = recount(gate, decision, earlier)
        return counted.passed, counted.reasons

    return Challenge(champion, test_rows, judge)


def recount(gate: GateSpec, decision: Decision, earlier: int) -> Decision:
    """Return the decision as it is when so many others were judged by the same champion and rows."""
    comparison, first = decision.comparison, decision.first
    if comparison is not None and comparison.earlier != earlier:
        counted = comparison.model_copy(update={"earlier": earlier})
        # Of those that passed, and others stay as they are, there were rows enough.
        before, after = (list(_judge_gain(gate, each, gate.minimum_rows)) for each in (comparison, counted))
        decision = decision.model_copy(update={"comparison": counted})
    elif first is not None and first.earlier != earlier:
        tried = first.model_copy(update={"earlier": earlier})
        before, after = ([_judge_first(gate, each)] for each in (first, tried))
        decision = decision.model_copy(update={"first": tried})
    else:
        return decision
    # What a remark or another test says stays where it is.
    renewed = dict(zip((reason for _, reason in before), (reason for _, reason in after), strict=True))
    return decision.model_copy(
        update={
            "passed": decision.passed and all(passed for passed, _ in after),
            "reasons": tuple(renewed.get(reason, reason) for reason in decision.reasons),
        }
    )


def _judge_minimum(gate: GateSpec, evaluation: Evaluation) -> _Judgement:
    name, value = evaluation.name_metric(evaluation.primary), evaluation.headline.value
    if gate.minimum is None:
        return True, f"{name} {value:.3f}; no minimum set"
    if value >= gate.minimum:
        return True, f"{name} {value:.3f} reaches the minimum {gate.minimum:.3f}"
    return False, f"{name} {value:.3f} is below the minimum {gate.minimum:.3f}"


def _judge_first(gate: GateSpec, first: FirstTrial) -> _Judgement:
    needed = tighten_confidence(gate.confidence, first.earlier)
    return _judge_baselines(first.baselines, needed, _explain_level(gate, first.earlier, None))


def _judge_baselines(baselines: Sequence[Baseline], needed: float, why: str) -> _Judgement:
    """Judge a candidate by a trivial baseline: one that loses against it is of no use."""
    # All of them: one that is hardly worse than the best may differ less from the candidate.
    least = min(baselines, key=lambda baseline: baseline.confidence)
    passed = least.confidence >= needed
    shown = max(baselines, key=lambda baseline: baseline.value) if passed else least
    digits = _choose_digits(needed, why)
    return (
        passed,
        f"{'' if passed else 'not '}significantly better than the {shown.name} at {shown.value:.3f}: "
        f"{shown.gain:+z.3f}, above 0 with confidence {format_probability(shown.confidence, digits=digits)}, "
        f"{needed:.{digits}%} needed{why}",
    )


def _judge_gain(gate: GateSpec, champion: ChampionComparison | None, examples: int) -> Iterator[_Judgement]:
    if champion is None:
        yield True, "it is the first: there is no champion to beat"
        return
    name = f"v{champion.version}"
    if champion.changed_use:
        yield False, f"{champion.changed_use}; lorry promote decides by hand"
        if champion.gain is None:
            return
    if champion.examples is not None:
        yield from _judge_test(gate, champion)
    elif champion.confidence is not None:
        yield _judge_confidence(gate, champion, gate.confidence, "")
    elif champion.gain is None or champion.recorded is None:
        yield (
            False,
            f"it cannot be compared with {name}, for which this metric is not known: {champion.problem}; "
            "lorry promote decides by hand",
        )
    elif examples < gate.minimum_rows:
        yield False, f"{_count(examples)} cannot tell it from {name}: {gate.minimum_rows} are needed"
    else:
        is_higher = champion.gain > gate.minimum_gain
        yield (
            is_higher,
            f"it {'beats' if is_higher else 'does not beat'} the recorded {champion.recorded:.3f} of {name} "
            f"by more than {gate.minimum_gain:g} ({champion.gain:+z.3f}); {name} could not be loaded: "
            f"{champion.problem}",
        )
        if is_higher and champion.recorded_confidence is not None:
            yield _judge_record(gate, champion, champion.recorded_confidence)


def _judge_test(gate: GateSpec, champion: ChampionComparison) -> Iterator[_Judgement]:
    """Judge the paired test against the champion on the rows that it was not trained on."""
    name, examples = f"v{champion.version}", champion.examples or 0
    if champion.left_out:
        yield True, f"{_count(champion.left_out)} left out, which {name} was trained on"
    elif champion.unknown_rows:
        yield (
            True,
            f"which rows {name} was trained on is not known ({champion.unknown_rows}): some may be among the "
            "test rows",
        )
    value, recorded = champion.value, champion.recorded
    if value is not None and recorded is not None and abs(value - recorded) >= _LEAST_SHOWN:
        yield True, _compare_values(value, recorded, champion)
    if examples < gate.minimum_rows or champion.confidence is None:
        yield (
            False,
            f"{_count(examples)} cannot tell it from {name}: {gate.minimum_rows} are needed; lorry promote "
            "decides by hand",
        )
        return
    needed = tighten_confidence(gate.confidence, champion.earlier)
    yield _judge_confidence(gate, champion, needed, _explain_level(gate, champion.earlier, champion.version))


def _compare_values(value: float, recorded: float, champion: ChampionComparison) -> str:
    """Say what the champion has on the candidate's rows, and what it had when it was registered."""
    both = f"v{champion.version} has {value:.3f} on these rows, and had {recorded:.3f} when it was registered"
    if champion.recorded_low is None or value >= champion.recorded_low:
        return both
    return (
        f"{both}: so far below its 95 % interval of that time ({champion.recorded_low:.3f} and more) usually "
        "means that the data have changed, with other texts, other labels or harder rows"
    )


def _judge_record(gate: GateSpec, champion: ChampionComparison, confidence: float) -> _Judgement:
    needed = tighten_confidence(gate.confidence, champion.earlier)
    passed = confidence >= needed
    return (
        passed,
        f"by the intervals of both with confidence {format_probability(confidence, digits=1)}, {needed:.1%} "
        f"needed{_explain_level(gate, champion.earlier, champion.version)}",
    )


def _is_tested(champion: ChampionComparison) -> bool:
    confidences = (champion.confidence, champion.recorded_confidence)
    return bool(champion.test_rows) and any(confidence is not None for confidence in confidences)


def _judge_confidence(gate: GateSpec, champion: ChampionComparison, needed: float, why: str) -> _Judgement:
    confidence = champion.confidence or 0.0
    passed = confidence >= needed
    digits = _choose_digits(needed, why)
    return (
        passed,
        f"{champion.gain:+z.3f} over v{champion.version} on the same rows; above {gate.minimum_gain:g} with "
        f"confidence {format_probability(confidence, digits=digits)}, {needed:.{digits}%} needed{why}",
    )


def _choose_digits(needed: float, why: str) -> int:
    return 1 if not why or needed < 0.9985 else 3


def _explain_level(gate: GateSpec, earlier: int, champion: int | None) -> str:
    if not earlier:
        tries = f"challenge v{champion} on these rows" if champion is not None else "are tried"
        return f", so that luck promotes {1.0 - gate.confidence:.1%} at most, however many {tries}"
    others = "one adapter has" if earlier == 1 else f"{earlier} adapters have"
    tried = f"challenged v{champion}" if champion is not None else "been tried"
    return f", since {others} {tried} on these rows before"


def _count(rows: int) -> str:
    return f"{rows:,} test row{'' if rows == 1 else 's'}"
