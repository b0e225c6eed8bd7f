"""The evaluation step as a plain function."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lorry_components.data.prepared import load_card, load_labels
from lorry_components.data.rows import IMAGE
from lorry_components.inference import Predictor, assemble_adapter, load_adapter
from lorry_components.inference.recorded_outputs import record_outputs
from lorry_components.metrics.bootstrap import estimate_metrics
from lorry_components.models.bases import check_fingerprint
from lorry_components.models.quantization import import_peft_alone
from lorry_components.process_setup import release_memory
from lorry_components.progress import Progress, ignore_progress
from lorry_components.steps.evaluate.champion_comparison import (
    SPLIT,
    ScoredPart,
    compare_champion,
    find_first_trial,
    load_targets,
)
from lorry_components.steps.evaluate.evaluation_plot import plot_evaluation
from lorry_components.steps.evaluate.evaluation_report import (
    PLOT_NAME,
    PREDICTIONS_NAME,
    EvaluationReport,
    FirstTrial,
)
from lorry_components.steps.evaluate.prediction_file import write_predictions
from lorry_components.steps.evaluate.probe_comparison import compare_linear_probe, predict_with_probe
from lorry_components.steps.evaluate.trivial_baselines import measure_baselines
from lorry_components.steps.runtime.registered_candidate import RegisteredCandidate
from lorry_components.task_types import Prediction, Row, Target, TaskType
from lorry_components.tasks.resolution import ResolvedTask
from lorry_components.training.probe.feature_cache import FeatureCache
from lorry_components.training.training_summary import ADAPTER_FOLDER, TrainingSummary
from lorry_registry.errors import UsageError
from lorry_registry.manifest import Evaluation, Probe
from lorry_registry.registry import Registry
from lorry_registry.tasks.task_spec import TaskSpec

_FEW_ROWS = 20


def evaluate(
    task: ResolvedTask,
    data: Path,
    candidate: Path,
    target: Path,
    *,
    registry: Registry | None,
    progress: Progress = ignore_progress,
    features: FeatureCache | None = None,
    asks_base: bool = True,
    part: str = SPLIT,
) -> EvaluationReport:
    """Score a candidate on a part's rows, through the code that predicts, and compare it with the champion.

    Args:
        task: The task; its base is resolved, the source of its data is not.
        data: The folder that ``prepare_data`` wrote.
        candidate: The folder that ``finetune`` wrote; it may name a version that was registered before.
        target: Where to write ``evaluation.json``, the predictions and the plot.
        registry: Where the champion is looked up; None: the candidate is not compared.
        progress: Called with how many rows are done.
        features: Where features of the frozen base are kept; None: nowhere.
        asks_base: Whether the untrained base answers as well, if it can: that may take as long again.
        part: The part of the data that is predicted.

    Raises:
        AdapterRejectedError: The candidate does not load.
        BaseModelError: The base is not usable, or is not the one that the candidate was trained on.
        TrainingError: The candidate changes nothing.
    """
    import_peft_alone()
    started = time.perf_counter()
    origin = RegisteredCandidate.find(candidate) or TrainingSummary.load(candidate)
    adapter_id = origin.adapter_id if isinstance(origin, RegisteredCandidate) else ""
    first = (
        find_first_trial(registry, task.spec, load_card(data), adapter_id=adapter_id) if registry else None
    )
    scored, probe, first = _score_candidate(
        task,
        origin,
        data,
        candidate,
        target,
        registry,
        first,
        progress=progress,
        asks_base=asks_base,
        part=part,
    )
    release_memory()
    linear_probe = None
    if isinstance(origin, TrainingSummary):
        with tempfile.TemporaryDirectory() as scratch:
            probed = predict_with_probe(task, candidate, origin, scored.rows, features, Path(scratch))
            linear_probe = compare_linear_probe(task, scored, probed) if probed is not None else None
        release_memory()
    champion = compare_champion(task, scored, registry, adapter_id=adapter_id) if registry else None
    report = EvaluationReport(
        evaluation=scored.evaluation.model_copy(update={"linear_probe": linear_probe}),
        probe=probe,
        champion=champion,
        first=first if first and first.baselines else None,
        seconds=time.perf_counter() - started,
        single_answer=_find_single_answer(task.task_type, scored),
        picture=task.task_type.picture_predictions(scored.targets, scored.predictions),
    )
    plot_evaluation(
        target / PLOT_NAME,
        title=task.spec.name,
        task_type=task.task_type,
        targets=scored.targets,
        predictions=scored.predictions,
        evaluation=report.evaluation,
        champion=champion,
        reference=task.spec.evaluate.reference,
    )
    report.save(target)
    return report


def _score_candidate(
    task: ResolvedTask,
    origin: RegisteredCandidate | TrainingSummary,
    data: Path,
    candidate: Path,
    target: Path,
    registry: Registry | None,
    first: FirstTrial | None,
    *,
    progress: Progress,
    asks_base: bool,
    part: str,
) -> tuple[ScoredPart, Probe, FirstTrial | None]:
    """Score a candidate, which is not in memory any more when the champion is loaded."""
    predictor, recorded = _load_candidate(task, origin, candidate, registry)
    scored = _score_rows(task.spec, predictor, data, target, progress=progress, part=part)
    baselines = measure_baselines(predictor, scored, load_labels(data, "train"), asks_base=asks_base)
    evaluation = scored.evaluation.model_copy(update={"baselines": baselines})
    probe = recorded or _record_outputs(predictor, origin)
    if first is not None:
        first = first.model_copy(update={"baselines": baselines})
    return replace(scored, evaluation=evaluation), probe, first


def _load_candidate(
    task: ResolvedTask,
    origin: RegisteredCandidate | TrainingSummary,
    candidate: Path,
    registry: Registry | None,
) -> tuple[Predictor, Probe | None]:
    """Return what predicts with a candidate, and its recorded outputs if it was registered before."""
    if isinstance(origin, RegisteredCandidate):
        if registry is None:
            raise UsageError("a registered version is evaluated from its registry", todo="give the registry")
        folder = registry.fetch(origin.adapter_id)
        loaded = load_adapter(folder, expected_id=origin.adapter_id, find_base=task.find_base)
        return loaded.predictor, loaded.manifest.probe
    check_fingerprint(task.base.identity, origin.base.fingerprint)
    predictor = assemble_adapter(
        candidate / ADAPTER_FOLDER,
        base=task.base,
        task_type=task.task_type.hold_pooling(origin.head),
        method=task.build_method(),
        labels=origin.labels,
    )
    return predictor, None


def _record_outputs(predictor: Predictor, origin: RegisteredCandidate | TrainingSummary) -> Probe:
    """Return a new adapter's outputs, and those without it: without its head, if it is nothing else."""
    assert isinstance(origin, TrainingSummary)
    # What a method begins with may change the base already, as soft prompts do.
    return record_outputs(predictor, has_pair=origin.has_pair, may_be_head_alone=bool(origin.kept_start))


def _find_single_answer(task_type: TaskType, scored: ScoredPart) -> str | None:
    # A few rows may well all have the same answer.
    if len(scored.predictions) < _FEW_ROWS:
        return None
    return task_type.find_single_answer(scored.targets, scored.predictions)


def score_predictor(
    spec: TaskSpec,
    predictor: Predictor,
    data: Path,
    target: Path,
    *,
    progress: Progress = ignore_progress,
    part: str = SPLIT,
) -> ScoredPart:
    """Predict the rows of a part and score them; write the predictions and the plot.

    Args:
        spec: The task.
        predictor: Predicts with the candidate, or with the base alone.
        data: The folder that ``prepare_data`` wrote.
        target: Where to write.
        progress: Called with how many rows are done.
        part: The part of the data that is predicted.
    """
    scored = _score_rows(spec, predictor, data, target, progress=progress, part=part)
    plot_evaluation(
        target / PLOT_NAME,
        title=spec.name,
        task_type=predictor.task_type,
        targets=scored.targets,
        predictions=scored.predictions,
        evaluation=scored.evaluation,
        reference=spec.evaluate.reference,
    )
    return scored


def _score_rows(
    spec: TaskSpec, predictor: Predictor, data: Path, target: Path, *, progress: Progress, part: str
) -> ScoredPart:
    task_type = predictor.task_type
    rows, targets = load_targets(task_type, data, part)
    target.mkdir(parents=True, exist_ok=True)
    predictions = write_predictions(
        target / PREDICTIONS_NAME,
        _describe_rows(task_type, rows, targets),
        predictor.predict_parts(rows, report=lambda done: progress(done, len(rows))),
    )
    evaluation = score_predictions(spec, task_type, targets, predictions, part=part)
    return ScoredPart(rows, targets, predictions, evaluation, load_card(data))


def score_predictions(
    spec: TaskSpec,
    task_type: TaskType,
    targets: Sequence[Target],
    predictions: Sequence[Prediction],
    *,
    part: str,
) -> Evaluation:
    """Return the metrics that a task asks for, with their intervals."""
    primary = spec.evaluate.primary or task_type.primary
    names = task_type.choose_metrics(spec.evaluate)
    positive = task_type.find_positive(names, spec.evaluate.positive, predictions)
    return Evaluation(
        split=part,
        examples=len(targets),
        primary=primary,
        metrics=estimate_metrics(
            {name: task_type.find_metric(name, positive)(targets, predictions) for name in names},
            len(targets),
            resamples=spec.evaluate.resamples,
        ),
        positive=positive,
    )


def _describe_rows(
    task_type: TaskType, rows: Sequence[Row], targets: Sequence[Target]
) -> Iterator[dict[str, Any]]:
    for row, target in zip(rows, targets, strict=True):
        # An image of the data is named by its label.
        texts = {name: text for name, text in row.items() if name != IMAGE}
        yield {**texts, "label": task_type.record_target(target)}
