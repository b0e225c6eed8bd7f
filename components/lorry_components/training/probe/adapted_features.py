"""The features of texts on an adapted base before its first step: one vector each, as its head reads it.

Soft tokens change what the base computes from the very beginning, so that a head that was fitted to the base
alone would be fitted to something else than it reads.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorry_components.data.rows import Row
from lorry_components.progress import Progress, ignore_progress
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_components.training.probe.feature_cache import Features
from lorry_components.training.setup.model_setup import Setup

if TYPE_CHECKING:
    from torch import nn


class AdaptedFeatures:
    """Computes features of rows. The numbers that the method begins with are drawn, so none are kept.

    Args:
        setup: What was set up for the task.
        task_type: Its task type.
        layer: The output layer of its head.
    """

    def __init__(self, setup: Setup, task_type: SequenceHeadTaskType, layer: "nn.Module") -> None:
        self._setup = setup
        self.task_type = task_type
        self._layer = layer

    def compute(self, rows: Sequence[Row], progress: Progress = ignore_progress) -> Features:
        """Return the features of rows, shape (rows, width).

        Args:
            rows: The inputs.
            progress: Called with how many rows are done.
        """
        import torch

        setup = self._setup
        if torch.cuda.is_available() and not setup.method.list_load_options():
            setup.model.to(torch.device("cuda"))
        was_training = setup.model.training
        setup.model.train(mode=False)
        features: Features = self.task_type.compute_features(
            setup.model, self._layer, setup.reader, rows, lambda done: progress(done, len(rows))
        )
        setup.model.train(mode=was_training)
        return features
