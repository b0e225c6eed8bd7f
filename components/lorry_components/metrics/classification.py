"""How well classes are predicted: accuracy, F1, Matthews correlation."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lorry_components.metrics.base import Prediction, Scorer, Target

# not_equivalent, non-toxic, no answer; and nontoxic, irrelevant, unacceptable beside the class without
# prefix.
_NEGATION = re.compile(r"(?:not|non|no)(?:[\W_]|$)")
_PREFIXES = ("not", "non", "no", "un", "in", "im", "ir", "dis")


def score_accuracy(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Share of rows with the right class."""
    right = np.asarray([target == guess["label"] for target, guess in zip(targets, predictions, strict=True)])
    return lambda draw: float(np.mean(right[draw]))


def score_f1(
    targets: Sequence[Target], predictions: Sequence[Prediction], *, positive: str | None = None
) -> Scorer:
    """F1 of a class: by default of :func:`choose_positive` when there are two, else the mean over classes.

    With GLUE's names of classes the default is GLUE's convention: of MRPC ``equivalent``, of QQP
    ``duplicate``.

    Args:
        targets: The true classes.
        predictions: The predicted ones.
        positive: The class; None: the default.
    """
    truth, guess, classes = _number_classes(targets, predictions)
    chosen = positive if positive is not None else choose_positive(classes)
    if chosen is not None:
        number = classes.index(chosen) if chosen in classes else len(classes)
        truth, guess = (truth == number).astype(np.intp), (guess == number).astype(np.intp)

    def score(draw: NDArray[np.intp]) -> float:
        from sklearn.metrics import f1_score

        if chosen is not None:
            return float(f1_score(truth[draw], guess[draw], pos_label=1, zero_division=0.0))
        return float(f1_score(truth[draw], guess[draw], average="macro", zero_division=0.0))

    return score


def choose_positive(classes: Iterable[str]) -> str | None:
    """Return which of two classes F1 is of: the one that the other negates, or else the second one.

    Args:
        classes: The classes; if there are not two, no single one is meant.
    """
    names = sorted(classes)
    if len(names) != 2:
        return None
    first, second = names
    return first if _negates(second, first) and not _negates(first, second) else second


def _negates(name: str, other: str) -> bool:
    """Return whether a class is named as the absence of something, or of another class."""
    lowered = name.lower()
    return bool(_NEGATION.match(lowered)) or any(
        lowered == f"{prefix}{other.lower()}" for prefix in _PREFIXES
    )


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
) -> tuple[NDArray[np.intp], NDArray[np.intp], list[str]]:
    """Return true and predicted classes as numbers, and the classes of the task in that order.

    By the task's classes, not by those that a set of rows happens to hold.
    """
    classes = sorted({*map(str, targets), *(name for guess in predictions[:1] for name in guess["scores"])})
    numbers = {name: number for number, name in enumerate(classes)}
    truth = np.asarray([numbers[str(target)] for target in targets])
    guess = np.asarray([numbers[prediction["label"]] for prediction in predictions])
    return truth, guess, classes
