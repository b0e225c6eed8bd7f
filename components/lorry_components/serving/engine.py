"""The computation of a batch: rows of one adapter, or of several heads on one pass of the base.

This module imports torch.
"""

from collections.abc import Sequence

import torch

from lorry_components.serving.batching import Answer, Work
from lorry_components.serving.catalogue import ServedVersion
from lorry_components.task_types import Prediction
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_registry.errors import LorryError


def compute_batch(batch: Sequence[Work]) -> list[Answer]:
    """Return for each piece of work one prediction a row, or what is wrong with its rows.

    All pieces of work are of one group.
    """
    answers: list[Answer] = [_check(work) for work in batch]
    sound = [place for place, answer in enumerate(answers) if not isinstance(answer, LorryError)]
    rows = [row for place in sound for row in batch[place].rows]
    if not rows:
        return answers
    first = batch[sound[0]].version
    if first.head is None:
        shared = first.loaded.predictor.predict(rows)
    else:
        features = torch.from_numpy(first.loaded.predictor.compute_features(first.head, rows))
    start = 0
    for place in sound:
        end = start + len(batch[place].rows)
        answers[place] = (
            shared[start:end]
            if first.head is None
            else _apply_head(batch[place].version, features[start:end])
        )
        start = end
    return answers


def _check(work: Work) -> Answer:
    try:
        work.version.loaded.predictor.check_rows(work.rows)
    except LorryError as error:
        return error
    return []


def _apply_head(version: ServedVersion, features: torch.Tensor) -> list[Prediction]:
    task_type, head = version.loaded.task_type, version.head
    assert head is not None
    assert isinstance(task_type, SequenceHeadTaskType)
    with torch.inference_mode():
        device = next(head.parameters()).device
        outputs = head(features.to(device)).float().cpu().numpy()
    return task_type.decode_outputs(outputs, version.loaded.predictor.labels)
