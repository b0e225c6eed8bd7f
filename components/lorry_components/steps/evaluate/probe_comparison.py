"""An adapter beside the linear probe of its task, on the same test rows."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lorry_components.inference.predictor import ROWS_AT_ONCE
from lorry_components.metrics.differences import estimate_difference
from lorry_components.steps.evaluate.champion_comparison import ScoredPart
from lorry_components.steps.evaluate.evaluation_report import PREDICTIONS_NAME
from lorry_components.steps.evaluate.prediction_file import write_predictions
from lorry_components.task_types import Prediction, Row
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_components.tasks.resolution import ResolvedTask
from lorry_components.training.probe.feature_cache import FeatureCache
from lorry_components.training.probe.linear_probe import load_layer, open_features, predict_outputs
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.manifest import ProbeComparison


def predict_with_probe(
    task: ResolvedTask,
    candidate: Path,
    summary: TrainingSummary,
    rows: Sequence[Row],
    features: FeatureCache | None,
    scratch: Path,
) -> Sequence[Prediction] | None:
    """Return the predictions of the linear probe that a training fitted; None: it fitted none.

    The base is loaded for it and let go of, before a candidate is loaded on another.

    Args:
        task: The task; its base is resolved.
        candidate: The folder that ``finetune`` wrote.
        summary: What it wrote there about the training.
        rows: The test rows.
        features: Where features of the frozen base are kept; None: nowhere.
        scratch: A folder that the predictions are kept in.
    """
    layer = load_layer(candidate)
    task_type = task.task_type.hold_pooling(summary.head)
    if layer is None or not isinstance(task_type, SequenceHeadTaskType):
        return None
    opened = open_features(task.base, task_type, task.build_method(), features)
    if opened is None:
        return None
    # Some thousand rows after another: neither their tokens nor their features are all in memory.
    parts = (rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE))
    return write_predictions(
        scratch / PREDICTIONS_NAME,
        itertools.repeat({}, len(rows)),
        (
            task_type.decode_outputs(predict_outputs(opened.compute(part), layer), summary.labels)
            for part in parts
        ),
    )


def compare_linear_probe(
    task: ResolvedTask, scored: ScoredPart, predictions: Sequence[Prediction]
) -> ProbeComparison:
    """Compare a candidate with a linear probe on the same rows.

    Args:
        task: The task.
        scored: The candidate's predictions for the test rows.
        predictions: The probe's.
    """
    metric = task.task_type.find_metric(scored.evaluation.primary, scored.evaluation.positive)
    score_probe = metric(scored.targets, predictions)
    difference = estimate_difference(
        metric(scored.targets, scored.predictions), score_probe, len(scored.targets)
    )
    return ProbeComparison(
        value=score_probe(np.arange(len(scored.targets))),
        gain=difference.value,
        low=difference.low,
        high=difference.high,
    )
