"""The evaluation step as a plain function."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from lorry_components.data.rows import IMAGE
from lorry_components.inference import Predictor, assemble_adapter
from lorry_components.inference.probe import record_probe
from lorry_components.metrics.bootstrap import estimate_metrics
from lorry_components.models.bases import check_fingerprint
from lorry_components.progress import Progress, ignore_progress
from lorry_components.steps.evaluate.champion_comparison import (
    SPLIT,
    ScoredPart,
    compare_champion,
    load_test_part,
)
from lorry_components.steps.evaluate.evaluation_plot import plot_evaluation
from lorry_components.steps.evaluate.evaluation_report import (
    PLOT_NAME,
    PREDICTIONS_NAME,
    EvaluationReport,
)
from lorry_components.steps.evaluate.probe_comparison import compare_linear_probe, predict_with_probe
from lorry_components.task_types import Prediction, Row, Target, TaskType
from lorry_components.tasks.resolution import ResolvedTask
from lorry_components.training.feature_cache import FeatureCache
from lorry_components.training.training_summary import ADAPTER_FOLDER, TrainingSummary
from lorry_registry.manifest import Evaluation
from lorry_registry.registry import Registry
from lorry_registry.task_spec import TaskSpec
from lorry_registry.whole_files import write_whole_text

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
) -> EvaluationReport:
    """Score a candidate on the test rows, through the code that predicts, and compare it with the champion.

    Args:
        task: The task; its base is resolved, the source of its data is not.
        data: The folder that ``prepare_data`` wrote.
        candidate: The folder that ``finetune`` wrote.
        target: Where to write ``evaluation.json``, the predictions and the plot.
        registry: Where the champion is looked up; None: the candidate is not compared.
        progress: Called with how many rows are done.
        features: Where features of the frozen base are kept; None: nowhere.

    Raises:
        AdapterRejectedError: The candidate does not load.
        BaseModelError: The base is not usable, or is not the one that the candidate was trained on.
        TrainingError: The candidate changes nothing.
    """
    started = time.perf_counter()
    summary = TrainingSummary.load(candidate)
    check_fingerprint(task.base.identity, summary.base.fingerprint)
    probed = predict_with_probe(task, candidate, summary, load_test_part(task.task_type, data)[0], features)
    predictor = assemble_adapter(
        candidate / ADAPTER_FOLDER,
        base=task.base,
        task_type=task.task_type.hold_pooling(summary.head),
        method=task.build_method(),
        labels=summary.labels,
    )
    scored = score_predictor(task.spec, predictor, data, target, progress=progress)
    linear_probe = compare_linear_probe(task, scored, probed) if probed is not None else None
    report = EvaluationReport(
        evaluation=scored.evaluation.model_copy(update={"linear_probe": linear_probe}),
        probe=record_probe(predictor, has_pair=summary.has_pair),
        champion=compare_champion(task, scored, registry) if registry is not None else None,
        seconds=time.perf_counter() - started,
        single_answer=_find_single_answer(task.task_type, scored),
    )
    report.save(target)
    return report


def _find_single_answer(task_type: TaskType, scored: ScoredPart) -> str | None:
    # A few rows may well all have the same answer.
    if len(scored.predictions) < _FEW_ROWS:
        return None
    return task_type.find_single_answer(scored.targets, scored.predictions)


def score_predictor(
    spec: TaskSpec, predictor: Predictor, data: Path, target: Path, *, progress: Progress = ignore_progress
) -> ScoredPart:
    """Predict the test rows and score them; write the predictions and the plot.

    Args:
        spec: The task.
        predictor: Predicts with the candidate, or with the base alone.
        data: The folder that ``prepare_data`` wrote.
        target: Where to write.
        progress: Called with how many rows are done.
    """
    task_type = predictor.task_type
    rows, targets = load_test_part(task_type, data)
    predictions = predictor.predict(rows, report=lambda done: progress(done, len(rows)))
    evaluation = score_predictions(spec, task_type, targets, predictions, part=SPLIT)
    target.mkdir(parents=True, exist_ok=True)
    recorded = [task_type.record_target(target) for target in targets]
    _write_predictions(target / PREDICTIONS_NAME, rows, recorded, predictions)
    plot_evaluation(
        target / PLOT_NAME,
        title=spec.name,
        task_type=task_type,
        targets=targets,
        predictions=predictions,
        evaluation=evaluation,
    )
    return ScoredPart(rows, targets, predictions, evaluation)


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
    return Evaluation(
        split=part,
        examples=len(targets),
        primary=primary,
        metrics=estimate_metrics(
            {name: task_type.metrics[name](targets, predictions) for name in names},
            len(targets),
            resamples=spec.evaluate.resamples,
        ),
    )


def _write_predictions(
    path: Path, rows: Sequence[Row], targets: Sequence[Target], predictions: Sequence[Prediction]
) -> None:
    lines = []
    for row, target, prediction in zip(rows, targets, predictions, strict=True):
        # An image of the data is named by its label.
        texts = {name: text for name, text in row.items() if name != IMAGE}
        lines.append(json.dumps({**texts, "label": target, "prediction": prediction}, ensure_ascii=False))
    write_whole_text(path, "".join(f"{line}\n" for line in lines))
