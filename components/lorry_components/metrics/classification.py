"""How well classes are predicted: accuracy, F1, Matthews correlation."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lorry_components.metrics.base import Prediction, Scorer, Target


def score_accuracy(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Share of rows with the right class."""
    right = np.asarray([target == guess["label"] for target, guess in zip(targets, predictions, strict=True)])
    return lambda draw: float(np.mean(right[draw]))


def score_f1(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """F1 of the second class when there are two (GLUE's convention), and its macro average otherwise."""
    truth, guess, classes = _number_classes(targets, predictions)

    def score(draw: NDArray[np.intp]) -> float:
        from sklearn.metrics import f1_score

        if classes == 2:
            return float(f1_score(truth[draw], guess[draw], pos_label=1, zero_division=0.0))
        return float(f1_score(truth[draw], guess[draw], average="macro", zero_division=0.0))

    return score


def score_matthews(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Matthews correlation; 0 where one side has a single class."""
    truth, guess, _ = _number_classes(targets, predictions)

    def score(draw: NDArray[np.intp]) -> float:
        from sklearn.metrics import matthews_corrcoef

        if np.ptp(truth[draw]) == 0 or np.ptp(guess[draw]) == 0:
            return 0.0
        return float(matthews_corrcoef(truth[draw], guess[draw]))

    return score


def _number_classes(
    targets: Sequence[Target], predictions: Sequence[Prediction]
) -> tuple[NDArray[np.intp], NDArray[np.intp], int]:
    """Return true and predicted classes as numbers, and how many classes the task has.

    By the task's classes, not by those that a set of rows happens to hold.
    """
    classes = sorted({*map(str, targets), *(name for guess in predictions[:1] for name in guess["scores"])})
    numbers = {name: number for number, name in enumerate(classes)}
    truth = np.asarray([numbers[str(target)] for target in targets])
    guess = np.asarray([numbers[prediction["label"]] for prediction in predictions])
    return truth, guess, len(classes)
