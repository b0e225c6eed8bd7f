"""A candidate against the champion, on the same rows: when it is evaluated, and again if that one changed."""

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lorry_components.data.data_card import DataCard
from lorry_components.data.fingerprinting import find_unseen_rows
from lorry_components.data.prepared import load_card, load_rows
from lorry_components.inference import load_adapter
from lorry_components.metrics.differences import estimate_difference
from lorry_components.steps.evaluate.chosen_values import ChosenValues
from lorry_components.steps.evaluate.confidence import compare_intervals
from lorry_components.steps.evaluate.evaluation_report import (
    PREDICTIONS_NAME,
    ChampionComparison,
    EvaluationReport,
    FirstTrial,
)
from lorry_components.steps.evaluate.prediction_file import StoredPredictions, write_predictions
from lorry_components.steps.evaluate.row_changes import RowChanges, compare_rows
from lorry_components.task_types import Prediction, Row, Target, TaskType
from lorry_components.tasks.resolution import ResolvedTask
from lorry_registry.errors import AdapterRejectedError, BaseModelError, InvalidDataError
from lorry_registry.ledger.alpha_spending import count_challengers
from lorry_registry.manifest import Evaluation, Manifest
from lorry_registry.records.row_fingerprints import read_fingerprints
from lorry_registry.registry import Registry
from lorry_registry.stores import Store
from lorry_registry.tasks.task_spec import TaskSpec

SPLIT = "test"
_LISTED_CLASSES = 5


@dataclass(frozen=True, slots=True)
class ScoredPart:
    """The predictions for the test rows, and their metrics.

    Attributes:
        rows: The inputs.
        targets: The values that each prediction is compared with.
        predictions: One for each input.
        evaluation: The metrics.
        card: What the data card says of them.
    """

    rows: Sequence[Row]
    targets: Sequence[Target]
    predictions: Sequence[Prediction]
    evaluation: Evaluation
    card: DataCard

    def choose_rows(self, places: Sequence[int]) -> "ScoredPart":
        """Return the part with some of its rows only, given by their places in ascending order."""
        if len(places) == len(self.rows):
            return self
        return replace(
            self,
            rows=ChosenValues(self.rows, places),
            targets=ChosenValues(self.targets, places),
            predictions=ChosenValues(self.predictions, places),
        )


def load_targets(task_type: TaskType, data: Path, part: str = SPLIT) -> tuple[Sequence[Row], list[Target]]:
    """Return the rows of a part, and for each what its prediction is compared with.

    Args:
        task_type: The task's type.
        data: The folder that ``prepare_data`` wrote.
        part: Which part.
    """
    return task_type.group_targets(*load_rows(data, part))


def load_scored_part(task_type: TaskType, data: Path, evaluation: Path) -> ScoredPart:
    """Return what an evaluation found, from the predictions that it kept: nothing is predicted again.

    Args:
        task_type: The task's type.
        data: The folder that ``prepare_data`` wrote.
        evaluation: The folder that ``evaluate`` wrote.
    """
    rows, targets = load_targets(task_type, data)
    predictions = StoredPredictions(evaluation / PREDICTIONS_NAME)
    return ScoredPart(
        rows, targets, predictions, EvaluationReport.load(evaluation).evaluation, load_card(data)
    )


def find_first_trial(
    registry: Registry, spec: TaskSpec, card: DataCard, *, adapter_id: str = ""
) -> FirstTrial | None:
    """Return how many were judged before, for a task without a champion; None: it has one.

    Args:
        registry: Where the history is.
        spec: The task.
        card: The data card of the test rows.
        adapter_id: The candidate's adapter, if it is registered already.

    Raises:
        StoreError: The registry cannot be read.
    """
    state = registry.ledger.read_state(spec.name)
    if state.champion is not None:
        return None
    test_rows = card.splits["test"].digest
    events = registry.ledger.read_events(state)
    earlier = count_challengers(events, None, test_rows, besides=adapter_id)
    return FirstTrial(test_rows=test_rows, earlier=earlier, baselines=())


def compare_champion(
    task: ResolvedTask, scored: ScoredPart, registry: Registry, *, adapter_id: str = ""
) -> ChampionComparison | None:
    """Compare a candidate with the present champion of its task on the same rows; None: there is no champion.

    Rows that the champion was trained on are left out: it knows them by heart. A champion that cannot be
    loaded here is compared by the value that it was registered with.

    Args:
        task: The task.
        scored: The candidate's predictions.
        registry: Where the champion is looked up.
        adapter_id: The candidate's adapter, if it is registered already: it does not count as another one
            that tried.

    Raises:
        StoreError: The registry cannot be read.
    """
    spec, primary = task.spec, scored.evaluation.primary
    state = registry.ledger.read_state(spec.name)
    champion = state.champion
    if champion is None:
        return None
    manifest = registry.read_manifest(champion.adapter_id)
    value = scored.evaluation.headline.value
    metric = task.task_type.find_metric(primary, scored.evaluation.positive)
    # A metric of the same name means something else for another task type, and F1 for another class.
    is_same = manifest.kind == spec.kind and (
        manifest.evaluation.name_metric(primary) == scored.evaluation.name_metric(primary)
    )
    known = manifest.evaluation.metrics.get(primary) if is_same else None
    recorded = known.value if known else None
    test_rows = scored.card.splits["test"].digest
    events = registry.ledger.read_events(state)
    earlier = count_challengers(events, champion.version, test_rows, besides=adapter_id)
    changed_use = _describe_changed_use(manifest, champion.version, spec, scored.card)
    try:
        unseen, unknown = _find_unseen(registry.store, manifest, scored)
        compared = scored.choose_rows(unseen)
        with tempfile.TemporaryDirectory() as scratch:
            predictions = _predict_as_champion(
                champion.adapter_id, manifest.kind, task, compared.rows, registry, Path(scratch)
            )
            score_champion = metric(compared.targets, predictions) if unseen else None
            changes = _compare_rows(task, compared, predictions) if unseen else None
    except (AdapterRejectedError, BaseModelError, InvalidDataError) as error:
        # A new base often replaces the old one on this machine, and new rows may be too long for the old
        # task: the champion is then compared by the value that it was registered with.
        return ChampionComparison(
            version=champion.version,
            adapter_id=champion.adapter_id,
            recorded=recorded,
            recorded_low=known and known.low,
            gain=None if recorded is None else value - recorded,
            problem=str(error.faults[0] if isinstance(error, InvalidDataError) else error).splitlines()[0],
            recorded_confidence=known
            and compare_intervals(scored.evaluation.headline, known, minimum_gain=spec.gate.minimum_gain),
            test_rows=test_rows,
            earlier=earlier,
            changed_use=changed_use,
        )
    comparison = ChampionComparison(
        version=champion.version,
        adapter_id=champion.adapter_id,
        recorded=recorded,
        recorded_low=known and known.low,
        gain=None,
        examples=len(unseen),
        left_out=len(scored.rows) - len(unseen),
        unknown_rows=unknown,
        test_rows=test_rows,
        earlier=earlier,
        changed_use=changed_use,
    )
    if score_champion is None:
        return comparison
    score_candidate = metric(compared.targets, compared.predictions)
    difference = estimate_difference(score_candidate, score_champion, len(unseen))
    return comparison.model_copy(
        update={
            "value": score_champion(np.arange(len(unseen))),
            "gain": difference.value,
            "changes": changes,
            "confidence": difference.find_confidence(spec.gate.minimum_gain),
        }
    )


def _describe_changed_use(manifest: Manifest, version: int, spec: TaskSpec, card: DataCard) -> str:
    """Return what programs that use a champion would not find in the candidate; "" if they would find all."""
    if manifest.kind != spec.kind:
        return f"v{version} is a {manifest.kind}, and this is a {spec.kind}"
    had_pair = any("text_pair" in row for row in manifest.probe.rows)
    if manifest.probe.rows and had_pair != (spec.data.columns.text_pair is not None):
        read, reads = ("two texts", "one") if had_pair else ("one text", "two")
        return f"v{version} reads {read} a row, and this reads {reads}"
    lost = sorted(set(manifest.labels or ()) - set(card.labels or ()))
    if not lost:
        return ""
    listed = ", ".join(map(repr, lost[:_LISTED_CLASSES]))
    more = f" and {len(lost) - _LISTED_CLASSES} more" if len(lost) > _LISTED_CLASSES else ""
    return f"v{version} knows the class{'' if len(lost) == 1 else 'es'} {listed}{more}, and this does not"


def _compare_rows(
    task: ResolvedTask, compared: ScoredPart, predictions: Sequence[Prediction]
) -> RowChanges | None:
    return compare_rows(
        task.task_type, compared.rows, compared.targets, before=predictions, now=compared.predictions
    )


def _find_unseen(store: Store, manifest: Manifest, scored: ScoredPart) -> tuple[Sequence[int], str]:
    """Return the places of the test rows that a champion was not trained on, and why they are not known."""
    try:
        fingerprints = read_fingerprints(store, manifest)
    except AdapterRejectedError as error:
        return range(len(scored.rows)), error.what
    if fingerprints is None:
        return range(len(scored.rows)), "none were recorded"
    return find_unseen_rows(fingerprints, scored.rows), ""


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
