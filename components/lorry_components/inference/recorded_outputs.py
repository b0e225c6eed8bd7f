"""Recorded outputs on fixed inputs: written at registration, compared at every load.

A manifest has them as ``probe``; the linear probe is another thing.
"""

import numpy as np

from lorry_components.inference.predictor import Predictor
from lorry_components.task_types.base import Outputs
from lorry_registry.errors import TrainingError
from lorry_registry.manifest import Probe

_TEXTS = (
    ("The quick brown fox jumps over the lazy dog.", "A dog sleeps while a fox runs past."),
    ("I have never been so happy with anything I bought.", "It broke on the first day, and nobody answers."),
    ("What time does the train to the coast leave on Sundays?", "The museum is closed on public holidays."),
)
# Some roundings of a 32-bit number near 1.
LEAST_EFFECT = 1e-6
# Outputs on other processors differ in the last digits; a wrong or missing adapter differs in the first.
LARGEST_TOLERANCE = 2e-3


def measure_distances(outputs: Outputs, recorded: Outputs) -> Outputs:
    """Return how far outputs are from recorded ones: as a share of those that are large, else as they are."""
    distances: Outputs = np.abs(outputs - recorded) / (1.0 + np.abs(recorded))
    return distances


def find_tolerance(recorded: Outputs, base_outputs: Outputs) -> float:
    """Return how far an adapter's outputs may be from the recorded ones when it is loaded.

    It is never more than half of what the adapter changes, so that the base alone is not taken for it.

    Args:
        recorded: The outputs that were recorded.
        base_outputs: Those with the adapter's change switched off.

    Returns:
        The tolerance for :func:`measure_distances`; 0 if the adapter changes nothing.
    """
    effect = float(measure_distances(base_outputs, recorded).max())
    return min(LARGEST_TOLERANCE, effect / 2)


def record_outputs(predictor: Predictor, *, has_pair: bool, may_be_head_alone: bool = False) -> Probe:
    """Run the probe with the adapter and without.

    Args:
        predictor: Predicts with the adapter.
        has_pair: Whether the task's rows have two texts.
        may_be_head_alone: Whether the adapter may leave the base as it is and give it nothing but a head.
            Where it does, there is no telling it from the base but by that head, without which all outputs
            are 0.

    Raises:
        TrainingError: The adapter changes nothing, or its outputs are not finite.
    """
    rows = [{"text": text} | ({"text_pair": pair} if has_pair else {}) for text, pair in _TEXTS]
    outputs = predictor.compute_outputs(rows)
    base_outputs = predictor.compute_base_outputs(rows)
    if not np.isfinite(outputs).all():
        raise TrainingError(
            "the adapter's outputs are not finite", where="probe", todo="train with a lower learning rate"
        )
    if may_be_head_alone and find_tolerance(outputs, base_outputs) < LARGEST_TOLERANCE:
        base_outputs = np.zeros_like(outputs)
    if np.abs(outputs - base_outputs).max() < LEAST_EFFECT:
        raise TrainingError(
            "the adapter changes nothing: its outputs are the base's",
            where="probe",
            todo="train longer or with a higher learning rate, and check the method's targets",
        )
    return Probe(
        rows=tuple(rows),
        outputs=tuple(tuple(float(value) for value in row) for row in outputs),
        base_outputs=tuple(tuple(float(value) for value in row) for row in base_outputs),
    )
