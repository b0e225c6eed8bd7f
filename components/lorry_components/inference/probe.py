"""The probe: fixed inputs whose outputs are recorded at registration and compared at every load."""

import numpy as np

from lorry_components.inference.predictor import Predictor
from lorry_registry.errors import TrainingError
from lorry_registry.manifest import Probe

_TEXTS = (
    ("The quick brown fox jumps over the lazy dog.", "A dog sleeps while a fox runs past."),
    ("I have never been so happy with anything I bought.", "It broke on the first day, and nobody answers."),
    ("What time does the train to the coast leave on Sundays?", "The museum is closed on public holidays."),
)
_LEAST_EFFECT = 1e-6


def record_probe(predictor: Predictor, *, has_pair: bool) -> Probe:
    """Run the probe with the adapter and without.

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
    if np.abs(outputs - base_outputs).max() < _LEAST_EFFECT:
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
