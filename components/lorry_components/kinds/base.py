"""The interface of a kind of task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Label = str | float
Row = Mapping[str, str]
Prediction = dict[str, Any]
Values = NDArray[Any]
Metric = Callable[[Values, Values], float]


class Kind(ABC):
    """How one kind of task is read, encoded, modelled, scored and shown.

    A kind has no state: all that depends on the data comes in as ``labels``, the classes of a
    classification in a fixed order, or None.

    Attributes:
        name: Its name in task files.
        summary: What it predicts, in a few words.
        metrics: Its metrics, by name.
        primary: The metric that the gate looks at when a task names none.
        has_classes: Whether its labels are classes.
        error_metrics: The metrics of which less is better; none of them can be the primary one.
        peft_task_type: PEFT's name for this kind of model, by which it feeds soft tokens; None: it has
            none.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    metrics: ClassVar[Mapping[str, Metric]]
    primary: ClassVar[str]
    has_classes: ClassVar[bool]
    peft_task_type: ClassVar[str | None]
    error_metrics: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def parse_label(self, raw: object) -> Label:
        """Turn a cell of the label column into a label.

        Raises:
            ValueError: It is not a label of this kind; the message says why.
        """

    @abstractmethod
    def encode_label(self, label: Label, labels: Sequence[str] | None) -> int | float:
        """Return the number that the loss is computed against."""

    @abstractmethod
    def encode_rows(
        self, tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], max_length: int
    ) -> list[dict[str, list[int]]]:
        """Return the model inputs of each row, unpadded: name -> token-wise numbers."""

    @abstractmethod
    def load_model(
        self, folder: "Path", labels: Sequence[str] | None, **options: Any
    ) -> "tuple[PreTrainedModel, frozenset[str]]":
        """Load the base with a head of this kind, from a folder of safetensors.

        Args:
            folder: The base.
            labels: The classes, or None.
            options: Fields of the base's configuration to change, such as its dropout.

        Returns:
            The model, and the names of the parameters that the base's weights do not hold: they are random.

        Raises:
            BaseModelError: The base is damaged, or its family has no such head.
        """

    @abstractmethod
    def decode_outputs(self, outputs: NDArray[np.float32], labels: Sequence[str] | None) -> list[Prediction]:
        """Turn raw outputs, shape (rows, outputs of the head), into predictions, one a row."""

    @abstractmethod
    def plot_predictions(
        self, axes: "Axes", targets: Sequence[Label], predictions: Sequence[Prediction]
    ) -> None:
        """Draw what a person wants to see of the test rows."""

    @abstractmethod
    def describe_prediction(self, prediction: Prediction) -> str:
        """Return a prediction in a few words, for a terminal."""

    @abstractmethod
    def extract_values(self, predictions: Sequence[Prediction]) -> Values:
        """Return what of each prediction is compared with the true label, shape (rows,)."""

    def compute_metrics(
        self, names: Sequence[str], targets: Sequence[Label], predictions: Sequence[Prediction]
    ) -> dict[str, float]:
        """Return metric name -> value. A metric that is not defined on these rows is 0."""
        truth, guess = np.asarray(targets), self.extract_values(predictions)
        return {name: self.metrics[name](truth, guess) for name in names}
