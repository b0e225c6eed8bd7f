"""Batched prediction with one adapter."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorry_components.kinds import Kind, Prediction
from lorry_components.kinds.base import Row
from lorry_components.methods import AdaptedModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH_ROWS = 64


class Predictor:
    """Computes outputs and predictions of one adapter, in the precision that its weights are stored in.

    Args:
        adapted: The base with the adapter on it.
        tokenizer: The base's tokeniser.
        kind: The kind of task.
        labels: The classes in the order of the outputs, or None.
        max_length: Texts are cut to so many tokens.
    """

    def __init__(
        self,
        adapted: AdaptedModel,
        tokenizer: "PreTrainedTokenizerBase",
        kind: Kind,
        labels: Sequence[str] | None,
        max_length: int,
    ) -> None:
        import torch

        self.adapted = adapted
        self.kind = kind
        self.labels = labels
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        adapted.model.to(self._device)

    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        """Return one prediction a row, in the order of the rows."""
        return self.kind.decode_outputs(self.compute_outputs(rows), self.labels)

    def compute_outputs(
        self, rows: Sequence[Row], *, report: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Return the raw outputs, shape (rows, outputs of the head).

        Rows are batched by length, so that little is computed on padding.

        Args:
            rows: ``{"text": ...}`` or ``{"text": ..., "text_pair": ...}``.
            report: Called with the number of rows that are done.
        """
        import torch

        encoded = self.kind.encode_rows(self._tokenizer, rows, self._max_length)
        order = sorted(range(len(rows)), key=lambda index: len(encoded[index]["input_ids"]))
        outputs = np.zeros((len(rows), len(self.labels) if self.labels else 1), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), _BATCH_ROWS):
                chosen = order[start : start + _BATCH_ROWS]
                batch = self._tokenizer.pad([encoded[index] for index in chosen], return_tensors="pt")
                logits = self.adapted.model(**batch.to(self._device)).logits
                outputs[chosen] = logits.float().cpu().numpy()
                if report is not None:
                    report(start + len(chosen))
        return outputs

    def compute_base_outputs(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Return the raw outputs with the adapter's change to the base switched off, the head kept."""
        with self.adapted.without_adapter():
            return self.compute_outputs(rows)
