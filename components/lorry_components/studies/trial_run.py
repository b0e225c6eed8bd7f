"""Runs one trial: trains and evaluates through the steps of the pipeline, and registers nothing."""

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from lorry_components.progress import Progress, ignore_progress
from lorry_components.steps.evaluate.step import evaluate, score_predictor
from lorry_components.steps.evaluate.zero_shot import assemble_base
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.prepare_data.step import load_card
from lorry_components.studies.peak_memory import measure_peak_memory
from lorry_components.studies.trials import Part, Training, TrialFolder, TrialRecord, TrialResult
from lorry_components.tasks.resolution import ResolvedTask, resolve_task
from lorry_components.training.probe.feature_cache import FeatureCache
from lorry_components.training.training_summary import ADAPTER_FOLDER, TrainingSummary
from lorry_registry.files.digests import DigestFile, digest_file
from lorry_registry.manifest import Evaluation
from lorry_registry.tasks.base_places import BasePlace
from lorry_registry.tasks.task_loading import place_base

# The share of a trial's time, for one bar over training and evaluation.
_TRAINING_SHARE = 0.9


class EvaluateUntrained(Protocol):
    """Scores an untrained base."""

    def __call__(
        self, task: ResolvedTask, data: Path, target: Path, *, part: Part, progress: Progress
    ) -> Evaluation:
        """Predict a part's rows, write ``predictions.jsonl`` into the target, and return the metrics."""


def evaluate_untrained(
    task: ResolvedTask,
    data: Path,
    target: Path,
    *,
    part: Part,
    progress: Progress = ignore_progress,
) -> Evaluation:
    """Score the untrained base on a part's rows, through the code that predicts.

    Raises:
        TrainingError: The task type puts a new head on the base, which is random before it is trained.
    """
    predictor = assemble_base(task, load_card(data).labels)
    scored = score_predictor(task.spec, predictor, data, target, progress=progress, part=part)
    return scored.evaluation


def run_trial(
    folder: TrialFolder,
    *,
    progress: Progress = ignore_progress,
    untrained: EvaluateUntrained = evaluate_untrained,
    digest: DigestFile = digest_file,
    bases: BasePlace | None = None,
    features: FeatureCache | None = None,
) -> TrialResult:
    """Do what a trial's job says; an interrupted training or evaluation continues.

    Args:
        folder: The trial's files, with its job.
        progress: Called with the progress of the trial, in thousandths.
        untrained: Scores the base if nothing is trained.
        digest: Computes the digest of a file of the base, or looks it up.
        bases: Where this machine has bases with a logical name; None: nowhere.
        features: Where features of frozen bases are kept; None: nowhere.

    Raises:
        LorryError: What the steps raise.
    """
    job = folder.read_job()
    task = resolve_task(place_base(job.spec, bases or BasePlace()), digest=digest)
    training = _train(task, job.data, folder, progress, features) if job.is_trained else None
    started = time.perf_counter()
    begin = _TRAINING_SHARE if job.is_trained else 0.0
    evaluating = _scale(progress, begin, 1.0)
    if job.is_trained:
        report = evaluate(
            task,
            job.data,
            folder.candidate,
            folder.evaluation,
            registry=None,
            progress=evaluating,
            # It is the same for all trials.
            asks_base=False,
            part=job.part,
        )
        evaluation = report.evaluation
    else:
        evaluation = untrained(task, job.data, folder.evaluation, part=job.part, progress=evaluating)
    result = TrialResult(
        seed=job.spec.train.seed,
        training=training,
        evaluation=evaluation,
        evaluation_seconds=time.perf_counter() - started,
    )
    folder.write_result(result)
    return result


def read_history(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield step and metrics of a training; if it was interrupted, some steps come twice.

    A line that a kill left unfinished is passed over: the training that went on from there wrote it again.
    """
    if path.exists():
        for line in path.read_text("utf-8", errors="replace").split("\n"):
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line)
                yield entry["step"], entry["metrics"]


def _train(
    task: ResolvedTask, data: Path, folder: TrialFolder, progress: Progress, features: FeatureCache | None
) -> Training:
    done = TrialRecord.load(folder.candidate)
    if done is not None:
        return done.training
    summary = finetune(
        task,
        data,
        folder.candidate,
        checkpoints=folder.checkpoints,
        progress=_scale(progress, 0.0, _TRAINING_SHARE),
        log_metrics=_HistoryFile(folder.history),
        features=features,
        # It is a row of its own.
        compares_probe=False,
    )
    training = Training(
        parameters=summary.parameters,
        learning_rate=summary.learning_rate,
        adapter_bytes=sum(path.stat().st_size for path in (folder.candidate / ADAPTER_FOLDER).iterdir()),
        seconds=_estimate_seconds(summary),
        # Measured now, because evaluation loads the base once more.
        peak_memory=measure_peak_memory(),
        device=summary.device,
        precision=summary.precision,
        steps=summary.steps,
        resumed_from=summary.resumed_from,
        loss=summary.loss,
        libraries=summary.libraries,
    )
    TrialRecord(training=training).save(folder.candidate)
    return training


def _estimate_seconds(summary: TrainingSummary) -> float | None:
    """Return the seconds of an uninterrupted training, extrapolated from the steps of this process."""
    if summary.steps == 0:
        return summary.seconds
    made = summary.steps - summary.resumed_from
    return summary.seconds * summary.steps / made if made > 0 else None


class _HistoryFile:
    """Keeps losses and validation metrics; numbers that JSON cannot hold are left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            # A kill in the middle of a line: what follows must not be taken for the rest of it.
            self._append("\n")

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Append the metrics of a step."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self._append(json.dumps({"step": step, "metrics": finite}) + "\n")

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(text)


def _scale(progress: Progress, begin: float, end: float) -> Progress:
    def report(done: int, total: int, note: str = "") -> None:
        share = done / total if total else 0.0
        progress(round(1000 * (begin + (end - begin) * share)), 1000, note)

    return report
