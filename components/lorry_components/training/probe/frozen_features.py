"""The features of texts on a frozen base: one vector each, as a linear model reads it."""

import importlib.metadata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lorry_components.data.rows import Row
from lorry_components.models.bases import Base
from lorry_components.models.configuration import load_config
from lorry_components.models.pretrained import load_pretrained
from lorry_components.models.quantization import keep_layout
from lorry_components.progress import Progress, ignore_progress
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_components.training.probe.feature_cache import FeatureCache, Features
from lorry_components.training.setup.precision import PrecisionName, find_dtype
from lorry_registry.files.digests import digest_document
from lorry_registry.manifest import Pooling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LIBRARIES = ("torch", "transformers", "tokenizers")


class FrozenFeatures:
    """Computes features of rows, or finds them in a cache. The base is loaded when it is first needed.

    Args:
        base: The base.
        task_type: How rows are tokenised.
        pooling: What is read of the base's states.
        load_options: What the base is loaded with, such as its quantisation.
        cache: Where features are kept; None: nowhere.
        precision: The format of matrix products. What is fitted to features in bf16 predicts as well.
    """

    def __init__(
        self,
        base: Base,
        task_type: SequenceHeadTaskType,
        pooling: Pooling,
        *,
        load_options: dict[str, Any] | None = None,
        cache: FeatureCache | None = None,
        precision: PrecisionName = "fp32",
    ) -> None:
        self._base = base
        self.task_type = task_type.without_soft_template()
        self.pooling = pooling
        self._options = load_options or {}
        self._cache = cache
        self._precision = precision
        self._loaded: tuple[PreTrainedModel, Any] | None = None

    def compute(self, rows: Sequence[Row], progress: Progress = ignore_progress) -> Features:
        """Return the features of rows, shape (rows, width).

        Args:
            rows: The inputs.
            progress: Called with how many rows are done.
        """
        shape = (len(rows), self._read_width())

        def fill(target: Features) -> None:
            self._fill(target, rows, progress)

        if self._cache is not None and rows:
            return self._cache.fetch(self._name(rows), shape, fill)
        target: Features = np.empty(shape, dtype=np.float32)
        fill(target)
        return target

    def _read_width(self) -> int:
        from lorry_components.models.pooled_model import read_output_width

        return read_output_width(load_config(self._base.folder))

    def _name(self, rows: Sequence[Row]) -> str:
        """Return the digest of all that decides the features."""
        return digest_document(
            {
                "base": self._base.identity.fingerprint,
                "options": {name: str(value) for name, value in self._options.items()},
                "rows": [dict(row) for row in rows],
                "max_length": self.task_type.form.max_length,
                "pooling": self.pooling.model_dump(mode="json"),
                "precision": self._precision,
                "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
            }
        ).partition(":")[2]

    def _load(self) -> "tuple[PreTrainedModel, Any]":
        if self._loaded is None:
            import torch

            model: Any
            model, _ = load_pretrained("AutoModel", self._base.folder, may_miss=True, **self._options)
            keep_layout(model)
            model.train(mode=False)
            if torch.cuda.is_available() and not self._options:
                model.to(torch.device("cuda"))
            self._loaded = model, self.task_type.load_reader(self._base.folder)
        return self._loaded

    def _fill(self, target: Features, rows: Sequence[Row], progress: Progress) -> None:
        import torch

        from lorry_components.models.pooled_model import pool_states

        model, tokenizer = self._load()
        batches = self.task_type.run_batches(model, tokenizer, rows, lambda done: progress(done, len(rows)))
        is_mixed = self._precision != "fp32"
        with torch.autocast(model.device.type, find_dtype(self._precision), enabled=is_mixed):
            for chosen, batch, found in batches:
                states = found.last_hidden_state.float()
                target[chosen] = pool_states(states, batch["attention_mask"], self.pooling).cpu().numpy()
