"""Sentences with a gap as a base reads them: with a mask in the gap, or up to the gap."""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from lorry_components.data.rows import Row
from lorry_components.data.templates import Part, Slot, Words
from lorry_components.task_types.template_filling import fill_pieces, find_affixes, split_pieces
from lorry_registry.errors import TrainingError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class ClozeReader:
    """How a base reads.

    Attributes:
        tokenizer: The base's.
        is_masked: Whether it fills in masks; otherwise it reads from left to right.
        takes_positions: Whether it reads from left to right and takes the position of each token.
    """

    tokenizer: "PreTrainedTokenizerBase"
    is_masked: bool
    takes_positions: bool


@dataclass(frozen=True, slots=True)
class Cloze:
    """An input with a gap.

    Attributes:
        ids: Its tokens.
        place: The position whose output predicts the object.
    """

    ids: list[int]
    place: int


def encode_clozes(
    reader: ClozeReader, parts: Sequence[Part], rows: Sequence[Row], max_length: int
) -> Iterator[Cloze]:
    """Yield each row as an input.

    Args:
        reader: How the base reads.
        parts: Of the template.
        rows: With the fields that the template names.
        max_length: The most tokens of an input, the object among them.

    Raises:
        TrainingError: The template leaves no room for a subject, or the base has no token for a gap.
    """
    tokenizer, is_masked = reader.tokenizer, reader.is_masked
    # A base that reads from left to right sees nothing behind the object.
    pieces = split_pieces(parts if is_masked else parts[: parts.index(Slot("label"))])
    before, after = find_affixes(tokenizer)
    if not is_masked:
        after = []
    label = pieces.index(None) if is_masked else len(pieces)
    # For a base that reads from left to right, the object itself is the last of what it is trained on.
    answer = [_find_mask(tokenizer)] if is_masked else []
    room = max_length - len(before) - len(after) - 1
    for filled in fill_pieces(tokenizer, pieces, rows, room):
        read = [*before, *chain.from_iterable(filled[:label])]
        ids = [*read, *answer, *chain.from_iterable(filled[label:]), *after]
        yield Cloze(ids, len(read) if is_masked else len(ids) - 1)


def pad_clozes(reader: ClozeReader, sequences: Sequence[Sequence[int]]) -> "dict[str, torch.Tensor]":
    """Return a batch: padded on the left for a base that reads from left to right, so that gaps come last."""
    import torch

    tokenizer = reader.tokenizer
    width = max(map(len, sequences))
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    ids = torch.full((len(sequences), width), padding)
    mask = torch.zeros_like(ids)
    for index, sequence in enumerate(sequences):
        place = slice(0, len(sequence)) if reader.is_masked else slice(width - len(sequence), width)
        ids[index, place] = torch.tensor(sequence)
        mask[index, place] = 1
    batch = {"input_ids": ids, "attention_mask": mask}
    if reader.takes_positions:
        batch["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return batch


def list_last_positions(count: int) -> "torch.Tensor":
    """Return the numbers of the last positions, shape (count,).

    Given their count alone, transformers would cut hidden states out as a view, and torch would multiply that
    by one copy of the output layer for each row.
    """
    import torch

    return torch.arange(-count, 0)


def has_space_before_label(parts: Sequence[Part]) -> bool:
    """Return whether white space stands before the gap: it is part of the token there for most decoders."""
    place = parts.index(Slot("label"))
    before = parts[place - 1] if place else None
    return isinstance(before, Words) and before.text[-1].isspace()


def takes_positions(config: "PretrainedConfig") -> bool:
    """Return whether a causal language model has an argument for the position of each token."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return "position_ids" in inspect.signature(model_class.forward).parameters


def _find_mask(tokenizer: "PreTrainedTokenizerBase") -> int:
    if tokenizer.mask_token_id is None:
        raise TrainingError(
            "the base's tokeniser has no mask token",
            where="base.model",
            todo="choose a base whose tokeniser has one, or one that reads from left to right",
        )
    return int(tokenizer.mask_token_id)
