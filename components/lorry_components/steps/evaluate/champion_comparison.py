"""A candidate against the champion, on the same rows: when it is evaluated, and again if that one changed."""

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lorry_components.data.prepared import load_rows
from lorry_components.inference import load_adapter
from lorry_components.metrics.bootstrap import estimate_gain_confidence
from lorry_components.steps.evaluate.evaluation_report import (
    PREDICTIONS_NAME,
    ChampionComparison,
    EvaluationReport,
)
from lorry_components.steps.evaluate.prediction_file import StoredPredictions, write_predictions
from lorry_components.task_types import Prediction, Row, Target, TaskType
from lorry_components.tasks.resolution import ResolvedTask
from lorry_registry.errors import AdapterRejectedError, BaseModelError, InvalidDataError
from lorry_registry.manifest import Evaluation
from lorry_registry.registry import Registry

SPLIT = "test"


@dataclass(frozen=True, slots=True)
class ScoredPart:
    """The predictions for the test rows, and their metrics.

    Attributes:
        rows: The inputs.
        targets: The values that each prediction is compared with.
        predictions: One for each input.
        evaluation: The metrics.
    """

    rows: Sequence[Row]
    targets: Sequence[Target]
    predictions: Sequence[Prediction]
    evaluation: Evaluation


def load_test_part(task_type: TaskType, data: Path) -> tuple[Sequence[Row], list[Target]]:
    """Return the test rows, and for each what its prediction is compared with.

    Args:
        task_type: The task's type.
        data: The folder that ``prepare_data`` wrote.
    """
    return task_type.group_targets(*load_rows(data, SPLIT))


def load_scored_part(task_type: TaskType, data: Path, evaluation: Path) -> ScoredPart:
    """Return what an evaluation found, from the predictions that it kept: nothing is predicted again.

    Args:
        task_type: The task's type.
        data: The folder that ``prepare_data`` wrote.
        evaluation: The folder that ``evaluate`` wrote.
    """
    rows, targets = load_test_part(task_type, data)
    predictions = StoredPredictions(evaluation / PREDICTIONS_NAME)
    return ScoredPart(rows, targets, predictions, EvaluationReport.load(evaluation).evaluation)


def compare_champion(task: ResolvedTask, scored: ScoredPart, registry: Registry) -> ChampionComparison | None:
    """Compare a candidate with the present champion of its task on the same rows; None: there is no champion.

    A champion that cannot be loaded here is compared by the value that it was registered with.

    Raises:
        StoreError: The registry cannot be read.
    """
    spec, task_type = task.spec, task.task_type
    champion = registry.ledger.read_state(spec.name).champion
    if champion is None:
        return None
    manifest = registry.read_manifest(champion.adapter_id)
    targets, primary = scored.targets, scored.evaluation.primary
    value = scored.evaluation.headline.value
    # A metric of the same name means something else for another task type.
    known = manifest.evaluation.metrics.get(primary) if manifest.kind == spec.kind else None
    recorded = known.value if known else None
    try:
        with tempfile.TemporaryDirectory() as scratch:
            predictions = _predict_as_champion(
                champion.adapter_id, manifest.kind, task, scored.rows, registry, Path(scratch)
            )
            score_champion = task_type.metrics[primary](targets, predictions)
    except (AdapterRejectedError, BaseModelError, InvalidDataError) as error:
        # A new base often replaces the old one on this machine, and new rows may be too long for the old
        # task: the champion is then compared by the value that it was registered with.
        return ChampionComparison(
            version=champion.version,
            adapter_id=champion.adapter_id,
            recorded=recorded,
            gain=None if recorded is None else value - recorded,
            problem=str(error.faults[0] if isinstance(error, InvalidDataError) else error).splitlines()[0],
        )
    champion_value = score_champion(np.arange(len(targets)))
    return ChampionComparison(
        version=champion.version,
        adapter_id=champion.adapter_id,
        recorded=recorded,
        value=champion_value,
        gain=value - champion_value,
        confidence=estimate_gain_confidence(
            task_type.metrics[primary](targets, scored.predictions),
            score_champion,
            len(targets),
            minimum_gain=spec.gate.minimum_gain,
            resamples=spec.evaluate.resamples,
        ),
    )


def _predict_as_champion(
    adapter_id: str,
    former: str,
    task: ResolvedTask,
    rows: Sequence[Row],
    registry: Registry,
    scratch: Path,
) -> Sequence[Prediction]:
    """Return what a registered adapter, whose task had a former type, predicts for rows of the present task.

    Raises:
        AdapterRejectedError: The adapter is damaged, or was trained for rows of another form.
        BaseModelError: Its base is not here.
        InvalidDataError: The rows do not fit it.
    """
    task_type = task.task_type
    if former != task_type.name:
        raise AdapterRejectedError(f"it is a {former}, and the task is a {task_type.name} now")
    folder = registry.fetch(adapter_id)
    predictor = load_adapter(folder, expected_id=adapter_id, find_base=task.find_base).predictor
    if predictor.task_type.form.has_pair != task_type.form.has_pair:
        read, has = ("one text", "two texts") if task_type.form.has_pair else ("two texts", "one text")
        raise AdapterRejectedError(f"it reads {read} a row, and the task has {has} now")
    nothing: dict[str, str] = {}
    return write_predictions(
        scratch / PREDICTIONS_NAME, itertools.repeat(nothing, len(rows)), predictor.predict_parts(rows)
    )
