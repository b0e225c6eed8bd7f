"""Regression: a number for a text or a pair of texts."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorry_components.task_types.base import Label, Metric, Outputs, Prediction, Scorer, Target
from lorry_components.task_types.sequence_head import SequenceHeadTaskType

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[np.float64]
# Of the spread of the true numbers.
_HARDLY = 0.01


def compute_pearson(truth: Numbers, guess: Numbers) -> float:
    """Pearson's r; 0 where one side is constant."""
    # Not by the standard deviation: that of equal numbers is not always quite 0.
    if np.ptp(truth) == 0.0 or np.ptp(guess) == 0.0:
        return 0.0
    return float(np.corrcoef(truth, guess)[0, 1])


def compute_spearman(truth: Numbers, guess: Numbers) -> float:
    """Spearman's rank correlation; 0 where one side is constant."""
    from scipy.stats import rankdata

    return compute_pearson(rankdata(truth), rankdata(guess))


def compute_rmse(truth: Numbers, guess: Numbers) -> float:
    """Root of the mean squared error, in the unit of the label. Lower is better."""
    return float(np.sqrt(np.mean((truth - guess) ** 2)))


def _score_numbers(compute: Callable[[Numbers, Numbers], float]) -> Metric:
    def prepare(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
        truth, guess = np.asarray(targets, dtype=float), _list_values(predictions)
        return lambda draw: compute(truth[draw], guess[draw])

    return prepare


def _list_values(predictions: Sequence[Prediction]) -> Numbers:
    return np.asarray([prediction["value"] for prediction in predictions], dtype=float)


class Regression(SequenceHeadTaskType):
    """A number for a text or a pair of texts, learned by least squares."""

    name = "regression"
    summary = "a number for a text or a pair of texts"
    metrics = {
        "pearson": _score_numbers(compute_pearson),
        "spearman": _score_numbers(compute_spearman),
        "rmse": _score_numbers(compute_rmse),
    }
    primary = "pearson"
    label_form = "number"
    error_metrics = frozenset({"rmse"})

    def parse_label(self, raw: object) -> float:
        """Accept finite numbers and text that spells one."""
        if isinstance(raw, bool) or not isinstance(raw, int | float | str):
            raise ValueError(f"{raw!r} is not a number")
        try:
            value = float(raw)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{str(raw)[:40]!r} is not a number") from error
        if not math.isfinite(value):
            raise ValueError(f"{raw!r} is not finite")
        return value

    def encode_label(self, label: Label, labels: Sequence[str] | None) -> float:
        """Return the number itself."""
        return float(label)

    def decode_outputs(self, outputs: Outputs, labels: Sequence[str] | None) -> list[Prediction]:
        """Return ``{"value": number}`` a row."""
        return [{"value": float(value)} for value in outputs[:, 0]]

    def find_single_answer(self, targets: Sequence[Target], predictions: Sequence[Prediction]) -> str | None:
        """Return the mean of predictions that hardly differ, where the true numbers do."""
        truth, guess = np.asarray(targets, dtype=float), _list_values(predictions)
        if np.std(guess) > _HARDLY * np.std(truth):
            return None
        return f"{np.mean(guess):.2f}" if np.ptp(truth) > 0 else None

    def plot_predictions(
        self, axes: "Axes", targets: Sequence[Target], predictions: Sequence[Prediction]
    ) -> None:
        """Draw predicted against true values, and the line on which they are equal."""
        truth, guess = np.asarray(targets, dtype=float), _list_values(predictions)
        low, high = min(truth.min(), guess.min()), max(truth.max(), guess.max())
        axes.plot([low, high], [low, high], color="0.6", linewidth=1, zorder=1)
        axes.scatter(truth, guess, s=12, alpha=0.5, edgecolors="none", zorder=2)
        axes.set_xlabel("true value")
        axes.set_ylabel("predicted value")

    def describe_prediction(self, prediction: Prediction) -> str:
        """Return the number with its sign."""
        return f"{prediction['value']:+.2f}"
