"""Trivial baselines beside a candidate: one answer for all rows, the input itself, the untrained base."""

from collections.abc import Iterator, Sequence

import numpy as np

from lorry_components.data.rows import Label
from lorry_components.inference import Predictor
from lorry_components.metrics.differences import estimate_difference
from lorry_components.steps.evaluate.champion_comparison import ScoredPart
from lorry_components.task_types import Prediction
from lorry_registry.manifest import Baseline

UNTRAINED = "untrained base"
# A base that was never taught where to end writes on and on. Test rows stand in the order of their digests,
# so that the first of them are any.
_MOST_ROWS_OF_BASE = 1000


def measure_baselines(
    predictor: Predictor,
    scored: ScoredPart,
    answers: Sequence[Label],
    *,
    asks_base: bool,
) -> tuple[Baseline, ...]:
    """Score trivial baselines on the test rows, and compare the candidate with each on the same rows.

    The untrained base, where it can answer at all, answers a thousand rows at most.

    Args:
        predictor: The candidate's.
        scored: Its predictions.
        answers: The labels of the training rows.
        asks_base: Whether the untrained base answers as well.
    """
    prepare = predictor.task_type.find_metric(scored.evaluation.primary, scored.evaluation.positive)
    baselines = []
    for name, predictions in _list_predictions(predictor, scored, answers, asks_base=asks_base):
        count = len(predictions)
        compared = scored.choose_rows(range(count))
        own = prepare(compared.targets, compared.predictions)
        trivial = prepare(compared.targets, predictions)
        difference = estimate_difference(own, trivial, count)
        baselines.append(
            Baseline(
                name=name,
                value=trivial(np.arange(count)),
                gain=difference.value,
                confidence=difference.find_confidence(),
                examples=count,
            )
        )
    return tuple(baselines)


def _list_predictions(
    predictor: Predictor, scored: ScoredPart, answers: Sequence[Label], *, asks_base: bool
) -> Iterator[tuple[str, Sequence[Prediction]]]:
    yield from predictor.task_type.predict_trivially(scored.rows, answers, predictor.labels).items()
    untrained = predictor.predict_as_base(scored.rows[:_MOST_ROWS_OF_BASE]) if asks_base else None
    if untrained is not None:
        yield UNTRAINED, untrained
