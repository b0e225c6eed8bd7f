"""Text classification: one class for a text or a pair of texts."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorry_components.kinds.base import Label, Prediction, Values
from lorry_components.kinds.sequence_head import SequenceHeadKind

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def compute_accuracy(truth: Values, guess: Values) -> float:
    """Share of rows with the right class."""
    return float(np.mean(truth == guess))


def compute_f1(truth: Values, guess: Values) -> float:
    """F1 of the second class when there are two (GLUE's convention), and its macro average otherwise."""
    from sklearn.metrics import f1_score

    classes = np.unique(np.concatenate([truth, guess]))
    if len(classes) == 2:
        return float(f1_score(truth, guess, pos_label=classes[1], zero_division=0.0))
    return float(f1_score(truth, guess, average="macro", zero_division=0.0))


def compute_matthews(truth: Values, guess: Values) -> float:
    """Matthews correlation; 0 where one side has a single class."""
    from sklearn.metrics import matthews_corrcoef

    if len(np.unique(truth)) < 2 or len(np.unique(guess)) < 2:
        return 0.0
    return float(matthews_corrcoef(truth, guess))


class TextClassification(SequenceHeadKind):
    """One class for a text or a pair of texts, learned by cross-entropy."""

    name = "text-classification"
    summary = "one class for a text or a pair of texts"
    metrics = {"accuracy": compute_accuracy, "f1": compute_f1, "matthews": compute_matthews}
    primary = "accuracy"
    has_classes = True

    def parse_label(self, raw: object) -> str:
        """Accept text and whole numbers."""
        if isinstance(raw, float) and math.isfinite(raw) and raw.is_integer():
            raw = int(raw)
        if not isinstance(raw, str | int):
            raise ValueError(f"{raw!r} is not a class name or a whole number")
        text = str(raw).strip()
        if not text:
            raise ValueError("is empty")
        return text

    def encode_label(self, label: Label, labels: Sequence[str] | None) -> int:
        """Return the index of the class."""
        return list(labels or ()).index(str(label))

    def decode_outputs(self, outputs: NDArray[np.float32], labels: Sequence[str] | None) -> list[Prediction]:
        """Return ``{"label": class, "score": probability, "scores": {class: probability}}`` a row."""
        names = list(labels or ())
        exponents = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        shares = exponents / exponents.sum(axis=1, keepdims=True)
        return [
            {
                "label": names[int(row.argmax())],
                "score": float(row.max()),
                "scores": {name: float(share) for name, share in zip(names, row, strict=True)},
            }
            for row in shares
        ]

    def extract_values(self, predictions: Sequence[Prediction]) -> Values:
        """Return the predicted classes."""
        return np.asarray([prediction["label"] for prediction in predictions])

    def plot_predictions(
        self, axes: "Axes", targets: Sequence[Label], predictions: Sequence[Prediction]
    ) -> None:
        """Draw the confusion matrix, as shares of each true class, with counts."""
        guesses = [prediction["label"] for prediction in predictions]
        classes = sorted({*map(str, targets), *guesses})
        counts = np.zeros((len(classes), len(classes)), dtype=int)
        for target, guess in zip(targets, guesses, strict=True):
            counts[classes.index(str(target)), classes.index(guess)] += 1
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), classes)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        if len(classes) <= 12:
            for row, column in np.ndindex(counts.shape):
                shade = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=shade)

    def describe_prediction(self, prediction: Prediction) -> str:
        """Return the class and its probability."""
        return f"{prediction['label']} ({prediction['score']:.0%})"
