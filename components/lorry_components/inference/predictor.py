"""Prediction with one adapter."""

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lorry_components.methods import AdaptedModel
from lorry_components.task_types import Prediction, Row, TaskType
from lorry_components.task_types.base import Outputs, Report
from lorry_components.task_types.sequence_head import SequenceHeadTaskType

if TYPE_CHECKING:
    from torch import nn

ROWS_AT_ONCE = 4096
"""Rows that are in memory together: enough for batches of rows of like length, which are padded little."""


def _report_nothing(_done: int) -> None:
    pass


def _report_after(report: Report, before: int, done: int) -> None:
    report(before + done)


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
        self.reader = reader
        adapted.model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def predict(self, rows: Sequence[Row], *, report: Report = _report_nothing) -> list[Prediction]:
        """Return one prediction a row, in the order of the rows.

        Args:
            rows: The inputs.
            report: Called with how many are done.
        """
        return [prediction for part in self.predict_parts(rows, report=report) for prediction in part]

    def predict_parts(
        self, rows: Sequence[Row], *, report: Report = _report_nothing
    ) -> Iterator[list[Prediction]]:
        """Yield the predictions of some thousand rows after another, so that only those are in memory.

        Args:
            rows: The inputs; a sequence that reads them from a file keeps them out of memory, too.
            report: Called with how many are done.
        """
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[start : start + ROWS_AT_ONCE]
            report_part = functools.partial(_report_after, report, start)
            yield self.task_type.predict(self.adapted.model, self.reader, part, self.labels, report_part)

    def check_rows(self, rows: Sequence[Row]) -> None:
        """Refuse inputs that do not fit the base.

        Raises:
            InvalidDataError: There are such rows; all are counted, the first are listed.
        """
        self.task_type.check_rows(self.reader, rows)

    def predict_as_base(self, rows: Sequence[Row]) -> list[Prediction] | None:
        """Return what the base alone predicts, with the adapter switched off.

        None: the task type puts a new head on the base, which says nothing before it is trained.
        """
        reduced = self.task_type.reduce_to_base()
        if reduced is None:
            return None
        with self.adapted.without_adapter():
            return reduced.predict(self.adapted.model, self.reader, rows, self.labels, _report_nothing)

    def compute_outputs(self, rows: Sequence[Row]) -> Outputs:
        """Return numbers that characterize what the adapter computes, shape (rows, numbers)."""
        model = self.adapted.model
        return self.task_type.compute_outputs(model, self.reader, rows, self.labels, _report_nothing)

    def compute_features(self, layer: "nn.Module", rows: Sequence[Row]) -> Outputs:
        """Return what the output layer of a head on whole texts reads, shape (rows, width)."""
        assert isinstance(self.task_type, SequenceHeadTaskType)
        model = self.adapted.model
        return self.task_type.compute_features(model, layer, self.reader, rows, _report_nothing)

    def compute_base_outputs(self, rows: Sequence[Row]) -> Outputs:
        """Return the same with the adapter's change to the base switched off, the head kept."""
        with self.adapted.without_adapter():
            return self.compute_outputs(rows)
