"""Regression: a number for a text or a pair of texts."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorry_components.kinds.base import Label, Prediction, Values
from lorry_components.kinds.sequence_head import SequenceHeadKind

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def compute_pearson(truth: Values, guess: Values) -> float:
    """Pearson's r; 0 where one side is constant."""
    # Not by the standard deviation: that of equal numbers is not always quite 0.
    if np.ptp(truth) == 0.0 or np.ptp(guess) == 0.0:
        return 0.0
    return float(np.corrcoef(truth, guess)[0, 1])


def compute_spearman(truth: Values, guess: Values) -> float:
    """Spearman's rank correlation; 0 where one side is constant."""
    from scipy.stats import rankdata

    return compute_pearson(rankdata(truth), rankdata(guess))


def compute_rmse(truth: Values, guess: Values) -> float:
    """Root of the mean squared error, in the unit of the label. Lower is better."""
    return float(np.sqrt(np.mean((truth - guess) ** 2)))


class Regression(SequenceHeadKind):
    """A number for a text or a pair of texts, learned by least squares."""

    name = "regression"
    summary = "a number for a text or a pair of texts"
    metrics = {"pearson": compute_pearson, "spearman": compute_spearman, "rmse": compute_rmse}
    primary = "pearson"
    has_classes = False
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

    def decode_outputs(self, outputs: NDArray[np.float32], labels: Sequence[str] | None) -> list[Prediction]:
        """Return ``{"value": number}`` a row."""
        return [{"value": float(value)} for value in outputs[:, 0]]

    def extract_values(self, predictions: Sequence[Prediction]) -> Values:
        """Return the predicted numbers."""
        return np.asarray([prediction["value"] for prediction in predictions], dtype=float)

    def plot_predictions(
        self, axes: "Axes", targets: Sequence[Label], predictions: Sequence[Prediction]
    ) -> None:
        """Draw predicted against true values, and the line on which they are equal."""
        truth, guess = np.asarray(targets, dtype=float), self.extract_values(predictions)
        low, high = min(truth.min(), guess.min()), max(truth.max(), guess.max())
        axes.plot([low, high], [low, high], color="0.6", linewidth=1, zorder=1)
        axes.scatter(truth, guess, s=12, alpha=0.5, edgecolors="none", zorder=2)
        axes.set_xlabel("true value")
        axes.set_ylabel("predicted value")

    def describe_prediction(self, prediction: Prediction) -> str:
        """Return the number with its sign."""
        return f"{prediction['value']:+.2f}"
