"""Text classification: one class for a text or a pair of texts."""

import functools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np

from lorry_components.data.rows import DataForm, Label, Row
from lorry_components.metrics.base import Metric, Prediction, Target
from lorry_components.metrics.classification import (
    choose_positive,
    score_accuracy,
    score_f1,
    score_matthews,
)
from lorry_components.metrics.pictures import ConfusionPicture, count_confusions
from lorry_components.plot_style import SHADES
from lorry_components.task_types.base import Outputs
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_registry.errors import Fault
from lorry_registry.tasks.task_document import suggest_name
from lorry_registry.tasks.task_spec import EvaluateSpec
from lorry_registry.text.sizes import format_probability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAJORITY = "majority class"


class TextClassification(SequenceHeadTaskType):
    """One class for a text or a pair of texts, learned by cross-entropy."""

    name = "text-classification"
    summary = "one class for a text or a pair of texts"
    metrics = {"accuracy": score_accuracy, "f1": score_f1, "matthews": score_matthews}
    primary = "accuracy"
    row_metric = "accuracy"
    prediction_fields = {"label": "string", "score": "double", "scores": "map"}
    data_form = DataForm("class")
    # 2: a task that leaves its head open gets the one that its base states, fitted.
    # 3: such a training keeps its beginning where validation likes that better.
    # 4: such a head learns slowly.
    # 5: such a training is given up only where a paired test finds it worse on validation.
    code_version = 5

    def parse_label(self, raw: object) -> str:
        """Accept text, whole numbers, and true and false."""
        if isinstance(raw, bool):
            # As JSON spells it, and not Python.
            raw = "true" if raw else "false"
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

    def leave_head_open(self) -> Self:
        """Read what the base states, with a fitted head; transformers' own head where it states nothing.

        Measured in the lab book, "Heads": far better where there are many classes or few rows, and seldom
        worse.
        """
        return type(self)(replace(self.form, pooling="stated"))

    def decode_outputs(self, outputs: Outputs, labels: Sequence[str] | None) -> list[Prediction]:
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

    def find_metric(self, name: str, positive: str | None) -> Metric:
        """Return a metric by its name, F1 as that of a class if one is given."""
        metric = super().find_metric(name, positive)
        return functools.partial(metric, positive=positive) if metric is score_f1 else metric

    def find_positive(
        self, names: Sequence[str], positive: str | None, predictions: Sequence[Prediction]
    ) -> str | None:
        """Return the class whose F1 is computed, if F1 is computed and is not the mean over all classes."""
        if not any(self.metrics[name] is score_f1 for name in names):
            return None
        return positive or choose_positive(predictions[0]["scores"])

    def check_positive(self, evaluate: EvaluateSpec, labels: Sequence[str] | None) -> Iterator[Fault]:
        """Check that the class that a task file names for F1 is one of the classes."""
        positive = evaluate.positive
        if positive is not None and positive not in (labels or ()):
            yield Fault(
                "evaluate.positive",
                f"{positive!r} is none of the classes of the data",
                suggest_name(positive, labels or ()),
            )

    def find_single_answer(self, targets: Sequence[Target], predictions: Sequence[Prediction]) -> str | None:
        """Return the class of all predictions, where the true ones are several."""
        answers = {prediction["label"] for prediction in predictions}
        return answers.pop() if len(answers) == 1 and len(set(map(str, targets))) > 1 else None

    def predict_trivially(
        self, rows: Sequence[Row], answers: Sequence[Label], labels: Sequence[str] | None
    ) -> dict[str, list[Prediction]]:
        """Answer every row with the class that most training rows have."""
        counts = Counter(map(str, answers))
        names = list(labels or counts)
        shares = {name: counts[name] / len(answers) for name in names}
        label = max(names, key=shares.__getitem__)
        return {MAJORITY: [{"label": label, "score": shares[label], "scores": shares}] * len(rows)}

    def picture_predictions(
        self, targets: Sequence[Target], predictions: Sequence[Prediction]
    ) -> ConfusionPicture:
        """Return how often each class was answered with each class."""
        return count_confusions(
            [str(target) for target in targets], [str(prediction["label"]) for prediction in predictions]
        )

    def plot_predictions(
        self, axes: "Axes", targets: Sequence[Target], predictions: Sequence[Prediction]
    ) -> None:
        """Draw the confusion matrix, as shares of each true class, with counts."""
        guesses = [prediction["label"] for prediction in predictions]
        # Those that no test row has and that no one predicted are classes of the task, too.
        known = predictions[0].get("scores", {}) if predictions else {}
        classes = sorted({*map(str, targets), *guesses, *known})
        counts = np.zeros((len(classes), len(classes)), dtype=int)
        for target, guess in zip(targets, guesses, strict=True):
            counts[classes.index(str(target)), classes.index(guess)] += 1
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        drawn = axes.imshow(shares, cmap=SHADES, vmin=0.0, vmax=1.0)
        axes.figure.colorbar(drawn, ax=axes, label="share of the true class", fraction=0.046, pad=0.03)
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        unseen = set(classes) - set(map(str, targets))
        axes.set_yticks(
            range(len(classes)), [f"{name} (no row)" if name in unseen else name for name in classes]
        )
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        if len(classes) <= 12:
            for row, column in np.ndindex(counts.shape):
                shade = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=shade)

    def describe_prediction(self, prediction: Prediction) -> str:
        """Return the class and its probability."""
        return f"{prediction['label']} ({format_probability(prediction['score'])})"
