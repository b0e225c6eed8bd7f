"""The result of an evaluation, for the gate and for registration."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from lorry_components.metrics.pictures import Picture
from lorry_components.steps.evaluate.row_changes import RowChanges
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.manifest import Baseline, Evaluation, Probe

PREDICTIONS_NAME = "predictions.jsonl"
PLOT_NAME = "predictions.png"
REPORT_NAME = "evaluation.json"


class ChampionComparison(BaseModel):
    """The reigning champion compared with the candidate.

    Attributes:
        version: The champion's version.
        adapter_id: Its adapter.
        recorded: The champion's value of the candidate's primary metric, as registered, on the test rows of
            that time; None when that metric was not measured, so that the two cannot be compared.
        recorded_low: The lower bound of the 95 % interval of that value; None: there is no such value.
        value: Its primary metric on the candidate's test rows, but for those that it was trained on; None
            when it could not be loaded.
        gain: The candidate's value on the same rows less the champion's; None when they cannot be compared.
        confidence: How sure it is that the gain is above the minimum gain, from 0 to 1.
        problem: Why the champion could not be loaded, if so.
        recorded_confidence: How sure the gain over the recorded value is, by the intervals of both; None: the
            two are compared on the same rows, or not at all.
        examples: On how many rows the two are compared; None: not on the same rows.
        left_out: How many test rows are left out, because the champion was trained on them.
        unknown_rows: Why it is not known which rows the champion was trained on, if so.
        test_rows: The digest of the test rows.
        earlier: How many other adapters challenged the same champion on these test rows before.
        changes: How single rows changed; None: they are not compared.
        changed_use: Why programs that use the champion could not go on with the candidate as they are; "":
            they can.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    adapter_id: str
    recorded: float | None
    recorded_low: float | None = None
    value: float | None = None
    gain: float | None
    confidence: float | None = None
    problem: str = ""
    recorded_confidence: float | None = None
    examples: int | None = None
    left_out: int = 0
    unknown_rows: str = ""
    test_rows: str = ""
    earlier: int = 0
    changes: RowChanges | None = None
    changed_use: str = ""


class FirstTrial(BaseModel):
    """A candidate of a task without a champion, compared with the trivial baselines.

    Attributes:
        test_rows: The digest of the test rows.
        earlier: How many other adapters were judged on these test rows before, while there was no champion.
        baselines: Trivial baselines, each with the confidence by as many resamples as that number asks for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    test_rows: str
    earlier: int
    baselines: tuple[Baseline, ...]


class EvaluationReport(BaseModel):
    """Metrics of the candidate, and its comparison with the champion.

    Attributes:
        evaluation: The metrics.
        probe: The candidate's outputs on a few inputs.
        champion: The comparison with the champion; None: there is none.
        first: The comparison with the trivial baselines, if there are any and no champion.
        seconds: How long the evaluation took.
        single_answer: The one answer that the candidate gives to every test row, where answers should differ.
        picture: A small picture of the predictions; None: the task type has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    evaluation: Evaluation
    probe: Probe
    champion: ChampionComparison | None
    seconds: float
    single_answer: str | None = None
    picture: Picture | None = None
    first: FirstTrial | None = None

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        write_whole_text(folder / REPORT_NAME, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it from a folder."""
        return cls.model_validate_json((folder / REPORT_NAME).read_text("utf-8"))
