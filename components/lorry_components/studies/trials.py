"""A trial of a study: one variant and one seed, its files, and its result."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from lorry_components.steps.evaluate.evaluation_report import PREDICTIONS_NAME
from lorry_components.steps.runtime.outcomes import Failure
from lorry_components.studies.conditions import describe_conditions
from lorry_components.studies.variants import Variant
from lorry_components.training.setup.precision import Hardware
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.files.digests import digest_document, shorten_digest
from lorry_registry.manifest import Evaluation, ParameterCounts
from lorry_registry.tasks.task_spec import TaskSpec

_RESULT, _FAILURE, _JOB = "result.json", "failure.json", "job.json"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


Part = Literal["validation", "test"]
"""The rows that trials are scored on."""


class TrialJob(_Document):
    """What a trial's process needs to know.

    Attributes:
        spec: The task, with the trial's method and seed.
        data: The folder of prepared data.
        is_trained: Whether anything is trained; otherwise the untrained base predicts.
        part: The part of the data that is scored.
    """

    spec: TaskSpec
    data: Path
    is_trained: bool
    part: Part


class PeakMemory(_Document):
    """The peak memory of a training.

    Attributes:
        size_bytes: The peak, in bytes.
        place: The process's resident memory, or the GPU's.
    """

    size_bytes: int
    place: Literal["process", "gpu"]


class Training(_Document):
    """What training a trial took.

    Attributes:
        parameters: The trained ones, the head's counted separately, and all.
        learning_rate: The peak learning rate.
        adapter_bytes: Size of the adapter's files.
        seconds: Of the training loop, including validation; after an interruption, extrapolated from the
            steps of the last process; None if it made none.
        peak_memory: Of the process that finished the training.
        device: The device that it was trained on.
        precision: The number format that it was trained in.
        steps: Optimizer steps.
        resumed_from: The step from which the last process continued.
        loss: The last training loss.
        libraries: Versions that decide the result.
    """

    parameters: ParameterCounts
    learning_rate: float
    adapter_bytes: int
    seconds: float | None
    peak_memory: PeakMemory
    device: str
    precision: str
    steps: int
    resumed_from: int
    loss: float
    libraries: dict[str, str]


class TrialResult(_Document):
    """The result of a trial.

    Attributes:
        seed: The seed of its training.
        training: What training took; None if nothing was trained.
        evaluation: Its metrics on the rows of the part that was scored.
        evaluation_seconds: The time that they took.
    """

    seed: int
    training: Training | None
    evaluation: Evaluation
    evaluation_seconds: float


@dataclass(frozen=True, slots=True)
class TrialFolder:
    """The files of a trial.

    Attributes:
        path: Where they are.
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        """The checkpoints from which an interrupted training continues."""
        return self.path / "checkpoints"

    @property
    def candidate(self) -> Path:
        """The adapter, until it has been evaluated."""
        return self.path / "candidate"

    @property
    def evaluation(self) -> Path:
        """The files of the evaluation: predictions, a plot, metrics."""
        return self.path / "evaluation"

    @property
    def predictions(self) -> Path:
        """The predictions for the rows that are scored."""
        return self.evaluation / PREDICTIONS_NAME

    @property
    def history(self) -> Path:
        """Losses and validation metrics by step, as JSON lines."""
        return self.path / "history.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the study that runs the trial."""
        return self.path / "lock"

    @property
    def log(self) -> Path:
        """The output of the process."""
        return self.path / "log.txt"

    def write_job(self, job: TrialJob) -> None:
        """Write the job, and remove an earlier failure."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / _FAILURE).unlink(missing_ok=True)
        write_whole_text(self.path / _JOB, f"{job.model_dump_json(indent=2)}\n")

    def read_job(self) -> TrialJob:
        """Return the job."""
        return TrialJob.model_validate_json((self.path / _JOB).read_text("utf-8"))

    def write_result(self, result: TrialResult) -> None:
        """Keep the result, and remove what only led to it."""
        write_whole_text(self.path / _RESULT, f"{result.model_dump_json(indent=2)}\n")
        for folder in (self.checkpoints, self.candidate):
            shutil.rmtree(folder, ignore_errors=True)

    def read_result(self) -> TrialResult | None:
        """Return the result; None if the trial is not done, or its file is of another version of lorry."""
        if not self.predictions.exists():
            return None
        try:
            return TrialResult.model_validate_json((self.path / _RESULT).read_text("utf-8"))
        except (FileNotFoundError, ValidationError):
            return None

    def write_failure(self, failure: Failure) -> None:
        """Keep why the trial failed."""
        write_whole_text(self.path / _FAILURE, f"{failure.model_dump_json(indent=2)}\n")

    def read_failure(self) -> Failure | None:
        """Return why the trial failed, or None if it did not say."""
        try:
            return Failure.model_validate_json((self.path / _FAILURE).read_text("utf-8"))
        except FileNotFoundError:
            return None


@dataclass(frozen=True, slots=True)
class Trial:
    """One variant and one seed.

    Attributes:
        variant: The row that it belongs to.
        seed: The seed of its training.
        spec: The variant's task with that seed.
        data: The folder of prepared data.
        part: The part of it that is scored.
        digest: The digest of everything that decides the result.
    """

    variant: Variant
    seed: int
    spec: TaskSpec
    data: Path
    part: Part
    digest: str

    @property
    def name(self) -> str:
        """The variant's label and the seed."""
        return f"{self.variant.label}, seed {self.seed}" if self.variant.is_trained else self.variant.label

    @property
    def job(self) -> TrialJob:
        """What its process needs to know."""
        return TrialJob(spec=self.spec, data=self.data, is_trained=self.variant.is_trained, part=self.part)

    def open(self, trials: Path) -> TrialFolder:
        """Return its files, below the folder of all trials."""
        return TrialFolder(trials / shorten_digest(self.digest, 32))


@dataclass(frozen=True, slots=True)
class PreparedData:
    """Prepared data that several trials share.

    Attributes:
        folder: Where ``prepare_data`` wrote it.
        digest: The digest of its rows.
        warnings: The warnings of its card.
    """

    folder: Path
    digest: str
    warnings: tuple[str, ...] = ()


def lay_out_trials(
    variants: Sequence[Variant],
    seeds: Sequence[int],
    *,
    data: Mapping[str, PreparedData],
    part: Part,
    fingerprint: str,
    hardware: Hardware,
) -> list[Trial]:
    """Return the trials of a study: all variants on the first seed, then on the next, and so on.

    Started in this order, an interrupted study has compared all variants on as many seeds as it got to.

    Args:
        variants: The rows.
        seeds: The seeds; a variant that is not trained needs only the first.
        data: The prepared data, by the variant's label.
        part: The part of it that is scored.
        fingerprint: The base's.
        hardware: What the trials will run on.
    """
    return [
        _build_trial(variant, seed, data[variant.label], part, fingerprint, hardware)
        for seed in seeds
        for variant in variants
        if variant.is_trained or seed == seeds[0]
    ]


def _build_trial(
    variant: Variant, seed: int, data: PreparedData, part: Part, fingerprint: str, hardware: Hardware
) -> Trial:
    spec = variant.spec.model_copy(update={"train": variant.spec.train.model_copy(update={"seed": seed})})
    recipe = spec.describe_recipe()
    if not variant.is_trained:
        recipe = {key: recipe[key] for key in recipe if key not in ("method", "train")}
    digest = digest_document(
        {
            "data": data.digest,
            "part": part,
            "base": fingerprint,
            "recipe": recipe,
            # What was measured elsewhere, or by other versions, is another measurement.
            "conditions": describe_conditions(spec, hardware),
        }
    )
    return Trial(variant, seed, spec, data.folder, part, digest)


class TrialRecord(_Document):
    """A finished training, kept beside its adapter: its evaluation may have been interrupted."""

    training: Training

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        write_whole_text(folder / "trained.json", f"{self.model_dump_json(indent=2)}\n")

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read it from a folder; None if the training has not ended."""
        try:
            return cls.model_validate_json((folder / "trained.json").read_text("utf-8"))
        except (FileNotFoundError, ValidationError):
            return None
