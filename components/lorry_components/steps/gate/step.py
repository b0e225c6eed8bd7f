"""The gate as a pure function."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from lorry_components.steps.evaluate.evaluation_report import ChampionComparison, EvaluationReport
from lorry_registry.task_spec import GateSpec
from lorry_registry.whole_files import write_whole_text

DECISION_NAME = "decision.json"


class Decision(BaseModel):
    """Whether a candidate becomes the champion, and why.

    Attributes:
        passed: Whether it does.
        reasons: Why, in sentences.
        judged_champion: The version of the champion that it was compared with; None: there was none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    passed: bool
    reasons: tuple[str, ...]
    judged_champion: int | None

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_whole_text(folder / DECISION_NAME, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it from a folder."""
        return cls.model_validate_json((folder / DECISION_NAME).read_text("utf-8"))


def decide(gate: GateSpec, report: EvaluationReport) -> Decision:
    """Judge a candidate: its absolute value first, then its gain over the champion on the same rows."""
    judged = [
        _judge_minimum(gate, report),
        *_remark_single_answer(report.single_answer),
        *_judge_gain(gate, report.champion),
    ]
    return Decision(
        passed=all(passed for passed, _ in judged),
        reasons=tuple(reason for _, reason in judged),
        judged_champion=report.champion.version if report.champion else None,
    )


def _judge_minimum(gate: GateSpec, report: EvaluationReport) -> tuple[bool, str]:
    evaluation = report.evaluation
    name, value = evaluation.name_metric(evaluation.primary), evaluation.headline.value
    if gate.minimum is None:
        return True, f"{name} {value:.3f}; no minimum is asked for"
    if value >= gate.minimum:
        return True, f"{name} {value:.3f} reaches the minimum {gate.minimum:.3f}"
    return False, f"{name} {value:.3f} is below the minimum {gate.minimum:.3f}"


def _remark_single_answer(answer: str | None) -> list[tuple[bool, str]]:
    # This is remarked and not refused: whether a value is good enough is for the minimum to say.
    return [(True, f"it answers every test row with {answer!r}")] if answer is not None else []


def _judge_gain(gate: GateSpec, champion: ChampionComparison | None) -> list[tuple[bool, str]]:
    if champion is None:
        return [(True, "it is the first: there is no champion to beat")]
    if champion.confidence is None:
        if champion.gain is None or champion.recorded is None:
            reason = f"it cannot be compared with v{champion.version}, for which this metric is not known"
            return [(True, f"{reason}: {champion.problem}")]
        passed = champion.gain > gate.minimum_gain
        verb = "beats" if passed else "does not beat"
        return [
            (
                passed,
                f"it {verb} the recorded {champion.recorded:.3f} of v{champion.version} by more than "
                f"{gate.minimum_gain:g} ({champion.gain:+.3f}); v{champion.version} could not be loaded: "
                f"{champion.problem}",
            )
        ]
    passed = champion.confidence >= gate.confidence
    return [
        (
            passed,
            f"{champion.gain:+.3f} over v{champion.version} on the same rows; a gain above "
            f"{gate.minimum_gain:g} in {champion.confidence:.1%} of resamples, "
            f"{gate.confidence:.1%} {'are' if passed else 'would be'} needed",
        )
    ]
