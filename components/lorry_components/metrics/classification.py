"""Metrics of classification: accuracy, F1, Matthews correlation."""

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lorry_components.metrics.base import MeanScorer, Prediction, Scorer, Target, count_each

Counts = NDArray[np.intp] | NDArray[np.float64]
"""How many rows of each class there are in each set of rows, shape (sets, classes)."""


class ClassScorer:
    """A value of how many rows of each class are right, true and predicted: nothing else of a row counts.

    Args:
        truth: The number of each row's class.
        guess: The number of the class that is predicted.
        classes: How many classes the task has.
        compute: Returns the value for each set of rows from its right, true and predicted ones by class.
    """

    def __init__(
        self,
        truth: NDArray[np.intp],
        guess: NDArray[np.intp],
        classes: int,
        compute: Callable[[Counts, Counts, Counts], NDArray[np.float64]],
    ) -> None:
        self._truth, self._guess, self._classes, self._compute = truth, guess, classes, compute
        # What is wrong is of a class of its own, which is not counted.
        self._right = np.where(truth == guess, truth, classes)

    def __call__(self, draw: NDArray[np.intp], /) -> float:
        """Return the value on some rows."""
        return float(self.score_draws(draw[np.newaxis])[0])

    def score_draws(self, draws: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the value on each set of rows."""
        right = count_each(self._right[draws], self._classes + 1)[:, :-1]
        truth, guess = (count_each(side[draws], self._classes) for side in (self._truth, self._guess))
        return self._compute(right, truth, guess)


class SmoothedClassScorer(ClassScorer):
    """One whose interval comes from smoothed weights of rows.

    Not for a mean over classes, of which few rows show only some.
    """

    def draw_smoothed(self, *, resamples: int, seed: int) -> NDArray[np.float64]:
        """Return values of the Bayesian bootstrap with one row more, of which nothing is known.

        Rows have random weights, as Rubin (The Bayesian Bootstrap, 1981) has it, and so has the additional
        one, whose true and predicted class are any that occur: it stands for the mistakes that few rows do
        not show.

        Args:
            resamples: How many values.
            seed: Seeds the weights: the same seed gives the same values.
        """
        generator = np.random.default_rng(seed)
        cells, counts = np.unique(np.stack([self._truth, self._guess]), axis=1, return_counts=True)
        occurring = np.unique(cells)
        if len(occurring) == 1:
            occurring = np.arange(self._classes)
        weights = generator.gamma(counts, size=(resamples, len(counts)))
        more = generator.exponential(size=(resamples, 1))
        chosen = generator.choice(occurring, size=(2, resamples))
        is_each = np.eye(self._classes)
        truth, guess = (
            weights @ is_each[side] + more * is_each[new] for side, new in zip(cells, chosen, strict=True)
        )
        hits = weights * (cells[0] == cells[1])
        right = hits @ is_each[cells[0]] + more * is_each[chosen[0]] * (chosen[0] == chosen[1])[:, np.newaxis]
        return self._compute(right, truth, guess)


_ROUNDING = 1e-9

# not_equivalent, non-toxic, no answer; and nontoxic, irrelevant, unacceptable beside the class without
# prefix.
_NEGATION = re.compile(r"(?:not|non|no)(?:[\W_]|$)")
_PREFIXES = ("not", "non", "no", "un", "in", "im", "ir", "dis")


def score_accuracy(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Share of rows with the right class."""
    return MeanScorer([target == guess["label"] for target, guess in zip(targets, predictions, strict=True)])


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
    if chosen is None:
        return ClassScorer(truth, guess, len(classes), compute_macro_f1)
    # A class that occurs nowhere in these rows has a number all the same.
    number = classes.index(chosen) if chosen in classes else len(classes)
    return SmoothedClassScorer(
        truth, guess, max(len(classes), number + 1), lambda *counts: compute_f1(*counts)[:, number]
    )


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
    truth, guess, classes = _number_classes(targets, predictions)
    return SmoothedClassScorer(truth, guess, len(classes), compute_matthews)


def compute_f1(right: Counts, truth: Counts, guess: Counts) -> NDArray[np.float64]:
    """Return the F1 of each class in each set of rows; 0 of a class that is neither true nor predicted."""
    found = truth + guess
    scores = np.zeros(found.shape)
    np.divide(2.0 * right, found, out=scores, where=found > 0)
    return scores


def compute_macro_f1(right: Counts, truth: Counts, guess: Counts) -> NDArray[np.float64]:
    """Return the mean F1 of the classes that are true or predicted somewhere in a set of rows."""
    scores, occurs = compute_f1(right, truth, guess), truth + guess > 0
    return np.asarray([np.mean(row[chosen]) for row, chosen in zip(scores, occurs, strict=True)])


def compute_matthews(right: Counts, truth: Counts, guess: Counts) -> NDArray[np.float64]:
    """Return the Matthews correlation of each set of rows, for any number of classes.

    Gorodkin 2004, Comparing two K-category assignments by a K-category correlation coefficient.
    """
    # Products of counts pass what an integer of 64 bits holds only where a number of that many rows does.
    rows = truth.sum(axis=1, dtype=np.float64)
    shared = right.sum(axis=1) * rows - np.einsum("sc,sc->s", truth, guess, dtype=np.float64)
    true = rows**2 - np.einsum("sc,sc->s", truth, truth, dtype=np.float64)
    guessed = rows**2 - np.einsum("sc,sc->s", guess, guess, dtype=np.float64)
    # Of weighted rows all of one class rounding leaves next to nothing, and of counted ones nothing.
    least = _ROUNDING * rows**2
    spread = np.where((true > least) & (guessed > least), true * guessed, 0.0)
    scores = np.zeros(rows.shape)
    np.divide(shared, np.sqrt(spread), out=scores, where=spread > 0)
    return scores


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
