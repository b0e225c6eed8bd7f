"""An adapter beside the linear probe of its task, on the same test rows."""

from pathlib import Path

import numpy as np

from lorry_components.metrics.bootstrap import estimate_difference
from lorry_components.steps.evaluate.champion_comparison import ScoredPart
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_components.tasks.resolution import ResolvedTask
from lorry_components.training.feature_cache import FeatureCache
from lorry_components.training.linear_probe import load_layer, open_features, predict_outputs
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.manifest import ProbeComparison


def compare_linear_probe(
    task: ResolvedTask,
    candidate: Path,
    summary: TrainingSummary,
    scored: ScoredPart,
    features: FeatureCache | None,
) -> ProbeComparison | None:
    """Compare a candidate with the linear probe that its training fitted; None: it fitted none.

    Args:
        task: The task; its base is resolved.
        candidate: The folder that ``finetune`` wrote.
        summary: What it wrote there about the training.
        scored: The candidate's predictions for the test rows.
        features: Where features of the frozen base are kept; None: nowhere.
    """
    layer = load_layer(candidate)
    task_type = task.task_type.hold_pooling(summary.head)
    if layer is None or not isinstance(task_type, SequenceHeadTaskType):
        return None
    opened = open_features(task.base, task_type, task.build_method(), features)
    if opened is None:
        return None
    outputs = predict_outputs(opened.compute(scored.rows), layer)
    predictions = task_type.decode_outputs(outputs, summary.labels)
    metric = task_type.find_metric(scored.evaluation.primary, scored.evaluation.positive)
    score_probe = metric(scored.targets, predictions)
    difference = estimate_difference(
        metric(scored.targets, scored.predictions),
        score_probe,
        len(scored.targets),
        resamples=task.spec.evaluate.resamples,
    )
    return ProbeComparison(
        value=score_probe(np.arange(len(scored.targets))),
        gain=difference.value,
        low=difference.low,
        high=difference.high,
    )
