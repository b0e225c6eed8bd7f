"""The computation of a batch: rows of one adapter, or of several adapters in one pass of the base.

This module imports torch.
"""

from collections.abc import Sequence

import torch

from lorry_components.serving.batching import Answer, Work
from lorry_components.serving.catalogue import ServedVersion
from lorry_components.serving.mixed_lora import mix_rows
from lorry_components.task_types import Prediction
from lorry_components.task_types.base import batch_by_length
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_registry.errors import LorryError

_BATCH_ROWS = 64


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
    is_alone = all(batch[place].version is first for place in sound)
    if first.head is None or is_alone:
        shared = first.loaded.predictor.predict(rows)
    elif first.lora is not None:
        features = _mix_adapters([batch[place] for place in sound])
    else:
        features = torch.from_numpy(first.loaded.predictor.compute_features(first.head, rows))
    start = 0
    for place in sound:
        end = start + len(batch[place].rows)
        answers[place] = (
            shared[start:end]
            if first.head is None or is_alone
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


def _mix_adapters(batch: Sequence[Work]) -> torch.Tensor:
    """Return what the heads of LoRA adapters read of their rows, shape (rows, width)."""
    host = batch[0].version
    predictor, own = host.loaded.predictor, host.lora
    task_type, reader, model = predictor.task_type, predictor.reader, predictor.adapted.model
    assert isinstance(task_type, SequenceHeadTaskType)
    assert own is not None
    encoded = task_type.encode_rows(reader, [row for work in batch for row in work.rows])
    adapters = [work.version.lora for work in batch for _row in work.rows]
    features = torch.zeros(len(encoded), own.head.get_parameter("weight").shape[1], dtype=torch.float32)
    read: list[torch.Tensor] = []
    hook = own.head.register_forward_pre_hook(lambda _head, inputs: read.append(inputs[0]))
    try:
        with torch.inference_mode(), predictor.adapted.without_adapter():
            for chosen in batch_by_length([len(row["input_ids"]) for row in encoded], _BATCH_ROWS):
                padded = reader.pad([encoded[index] for index in chosen], return_tensors="pt")
                with mix_rows(own, [adapter for index in chosen if (adapter := adapters[index])]):
                    model(**padded.to(next(model.parameters()).device))
                features[chosen] = read.pop().float().cpu()
    finally:
        hook.remove()
    return features


def _apply_head(version: ServedVersion, features: torch.Tensor) -> list[Prediction]:
    task_type, head = version.loaded.task_type, version.head
    assert head is not None
    assert isinstance(task_type, SequenceHeadTaskType)
    with torch.inference_mode():
        device = next(head.parameters()).device
        outputs = head(features.to(device)).float().cpu().numpy()
    return task_type.decode_outputs(outputs, version.loaded.predictor.labels)
