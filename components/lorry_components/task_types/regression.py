"""Regression: a number for a text or a pair of texts."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from lorry_components.data.rows import DataForm, Label, Row
from lorry_components.metrics.base import Prediction, Target
from lorry_components.metrics.numbers import list_values, score_pearson, score_rmse, score_spearman
from lorry_components.metrics.pictures import ScatterPicture, choose_points
from lorry_components.plot_style import GUIDE, OWN
from lorry_components.task_types.base import Outputs
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_components.task_types.training_form import TrainingForm

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Of the spread of the true numbers.
_HARDLY = 0.01


class Regression(SequenceHeadTaskType):
    """A number for a text or a pair of texts, learned by least squares."""

    name = "regression"
    summary = "a number for a text or a pair of texts"
    metrics = {
        "pearson": score_pearson,
        "spearman": score_spearman,
        "rmse": score_rmse,
    }
    primary = "pearson"
    prediction_fields = {"value": "double"}
    data_form = DataForm("number")
    training_form = TrainingForm(scores_outputs=True, scales_labels=True)
    error_metrics = frozenset({"rmse"})
    # 2: a training with a fitted head is given up only where a paired test finds it worse on validation.
    code_version = 2

    def parse_label(self, raw: object) -> float:
        """Accept finite numbers, also as text."""
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

    def leave_head_open(self) -> Self:
        """Read what the base states, with a fitted head, where training rows are few; else transformers' own.

        Measured in the lab book, "Few rows": with 50 rows transformers' own may be far below a linear probe,
        with 200 and more it is the better one.
        """
        return type(self)(replace(self.form, pooling="stated-if-few"))

    def decode_outputs(self, outputs: Outputs, labels: Sequence[str] | None) -> list[Prediction]:
        """Return ``{"value": number}`` a row."""
        return [{"value": float(value)} for value in outputs[:, 0]]

    def find_single_answer(self, targets: Sequence[Target], predictions: Sequence[Prediction]) -> str | None:
        """Return the mean of predictions that hardly differ, where the true numbers differ."""
        truth, guess = np.asarray(targets, dtype=float), list_values(predictions)
        if np.std(guess) > _HARDLY * np.std(truth):
            return None
        return f"{np.mean(guess):.2f}" if np.ptp(truth) > 0 else None

    def predict_trivially(
        self,
        rows: Sequence[Row],
        answers: Sequence[Label],
        labels: Sequence[str] | None,
    ) -> dict[str, list[Prediction]]:
        """Answer every row with the mean of the training rows."""
        return {"mean": [{"value": float(np.mean(np.asarray(answers, dtype=float)))}] * len(rows)}

    def score_rows(self, targets: Sequence[Target], predictions: Sequence[Prediction]) -> NDArray[np.float64]:
        """Return the error of each row with its sign turned: correlations are of no single row."""
        return -np.abs(np.asarray(targets, dtype=float) - list_values(predictions))

    def picture_predictions(
        self, targets: Sequence[Target], predictions: Sequence[Prediction]
    ) -> ScatterPicture:
        """Return predicted beside true numbers."""
        return choose_points(np.asarray(targets, dtype=float), list_values(predictions))

    def plot_predictions(
        self, axes: "Axes", targets: Sequence[Target], predictions: Sequence[Prediction]
    ) -> None:
        """Draw predicted against true values, and the line on which they are equal."""
        truth, guess = np.asarray(targets, dtype=float), list_values(predictions)
        low, high = min(truth.min(), guess.min()), max(truth.max(), guess.max())
        axes.plot([low, high], [low, high], color=GUIDE, linewidth=1, zorder=1, label="predicted as it is")
        axes.scatter(
            truth, guess, s=12, alpha=0.5, color=OWN, edgecolors="none", zorder=2, label="a test row"
        )
        axes.set_xlabel("true value")
        axes.set_ylabel("predicted value")
        axes.legend(frameon=False, fontsize=8)

    def describe_prediction(self, prediction: Prediction) -> str:
        """Return the number with its sign."""
        return f"{prediction['value']:+.2f}"
