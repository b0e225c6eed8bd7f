"""Prediction with one adapter."""

from collections.abc import Sequence
from typing import Any

from lorry_components.methods import AdaptedModel
from lorry_components.task_types import Prediction, Row, TaskType
from lorry_components.task_types.base import Outputs, Report


def _report_nothing(_done: int) -> None:
    pass


class Predictor:
    """Computes the outputs and predictions of one adapter, in the precision that its weights are stored in.

    Args:
        adapted: The base with the adapter on it.
        reader: Turns rows into inputs, such as the base's tokenizer; the task type loaded it.
        task_type: The task type.
        labels: The classes in the order of the outputs, or None.
    """

    def __init__(
        self,
        adapted: AdaptedModel,
        reader: Any,
        task_type: TaskType,
        labels: Sequence[str] | None,
    ) -> None:
        import torch

        self.adapted = adapted
        self.task_type = task_type
        self.labels = labels
        self._reader = reader
        adapted.model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def predict(self, rows: Sequence[Row], *, report: Report = _report_nothing) -> list[Prediction]:
        """Return one prediction a row, in the order of the rows.

        Args:
            rows: The inputs.
            report: Called with how many are done.
        """
        return self.task_type.predict(self.adapted.model, self._reader, rows, self.labels, report)

    def predict_as_base(self, rows: Sequence[Row]) -> list[Prediction] | None:
        """Return what the base alone predicts, with the adapter switched off.

        None: the task type puts a new head on the base, which says nothing before it is trained.
        """
        reduced = self.task_type.reduce_to_base()
        if reduced is None:
            return None
        with self.adapted.without_adapter():
            return reduced.predict(self.adapted.model, self._reader, rows, self.labels, _report_nothing)

    def compute_outputs(self, rows: Sequence[Row]) -> Outputs:
        """Return numbers that characterize what the adapter computes, shape (rows, numbers)."""
        model = self.adapted.model
        return self.task_type.compute_outputs(model, self._reader, rows, self.labels, _report_nothing)

    def compute_base_outputs(self, rows: Sequence[Row]) -> Outputs:
        """Return the same with the adapter's change to the base switched off, the head kept."""
        with self.adapted.without_adapter():
            return self.compute_outputs(rows)
