"""Several sequences behind one another in one row, without padding between them.

Positions restart at 0 with each sequence. Where there is neither a mask nor a cache, transformers reads from
them where a sequence begins, and lets no token attend across: by a mask of blocks, or by the sequences'
lengths where FlashAttention is installed. So packed and padded batches have the same loss and gradients.
"""

from typing import Any

import torch

from lorry_components.task_types.base import IGNORED

Features = dict[str, Any]


def pack(features: list[Features]) -> dict[str, torch.Tensor]:
    """Return a batch of one row: inputs, positions and labels, each of shape (1, tokens of all sequences).

    Args:
        features: The sequences, each with ``input_ids`` and ``labels`` of the same length.
    """
    inputs: list[int] = []
    positions: list[int] = []
    labels: list[int] = []
    for row in features:
        inputs += row["input_ids"]
        positions += range(len(row["input_ids"]))
        # The end of one sequence must not learn to predict the first token of the next.
        labels += [IGNORED, *row["labels"][1:]]
    return {
        "input_ids": torch.tensor([inputs]),
        "position_ids": torch.tensor([positions]),
        "labels": torch.tensor([labels]),
    }
