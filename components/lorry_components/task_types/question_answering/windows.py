"""Contexts cut into overlapping windows, each beside its question, with the characters of every token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorry_components.data.rows import Row
from lorry_components.task_types.base import Features
from lorry_registry.errors import BaseModelError, Fault, InvalidDataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# So many at once, for the tokeniser's own objects take far more room than what is kept of them.
_ROWS_AT_ONCE = 256
_LISTED_FAULTS = 20
_CONTEXT = 1


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a context, and what a model reads of it.

    Attributes:
        row: The number of its row.
        features: The tokens of question and piece, and of which of the two each is.
        nothing: The token that stands for "there is no answer here": the one that stands for the whole input
            (``[CLS]``, ``<s>``), or the first where a base has none.
        first: The first token of the context.
        characters: Where each token of the context starts and ends in it, shape (tokens, 2).
    """

    row: int
    features: Features
    nothing: int
    first: int
    characters: NDArray[np.int32]

    def locate(self, start: int, end: int) -> tuple[int, int]:
        """Return the first and the last token of the characters [start, end).

        Of characters that are not all in the window both are :attr:`nothing`.
        """
        starts, ends = self.characters[:, 0], self.characters[:, 1]
        inside = np.flatnonzero((starts < end) & (ends > start))
        if not len(inside) or starts[0] > start or ends[-1] < end:
            return self.nothing, self.nothing
        return self.first + int(inside[0]), self.first + int(inside[-1])


def compute_overlap(max_length: int) -> int:
    """Return how many tokens of the context two windows share.

    A quarter of the window (96 tokens of 384): three times the longest answers that are usual, of some 30
    tokens, so that each stands in one window whole and with words on both sides; and no more, since long
    contexts already cost about a third more with it.
    """
    return max_length // 4


def cut_windows(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], max_length: int
) -> Iterator[Window]:
    """Yield the windows of all rows, in the order of the rows and of their contexts.

    Questions are never cut, see :func:`check_questions`.

    Args:
        tokenizer: One that knows from which characters a token comes.
        rows: Questions as ``text``, contexts as ``text_pair``.
        max_length: The most tokens of a window, those of the question and special ones among them.
    """
    for offset in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[offset : offset + _ROWS_AT_ONCE]
        encoded = tokenizer(
            [row["text"] for row in part],
            [row["text_pair"] for row in part],
            truncation="only_second",
            max_length=max_length,
            stride=compute_overlap(max_length),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        for index, row in enumerate(encoded["overflow_to_sample_mapping"]):
            yield _make_window(tokenizer, encoded, index, offset + row)


def check_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> Iterator[Fault]:
    """Check that a tokenizer says from which characters a token comes."""
    if not tokenizer.is_fast:
        yield Fault(
            "base.model",
            f"its tokenizer {type(tokenizer).__name__} does not say from which characters a token comes, so "
            "that no answer can be cut out",
            "name a base with a tokenizer.json",
        )


def check_questions(tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], max_length: int) -> None:
    """Refuse questions that leave too little of a window to their context.

    A window must move on by as many tokens as it shares with the one before it, or a long context would
    take windows without end.

    Raises:
        BaseModelError: The tokeniser is not fit for this.
        InvalidDataError: There are such questions; all are counted, the first are listed.
    """
    for fault in check_tokenizer(tokenizer):
        raise BaseModelError(fault.what, where=tokenizer.name_or_path, todo=fault.remedy)
    room = _measure_room(tokenizer, max_length)
    lengths = [len(ends) for ends in _list_ends(tokenizer, rows)]
    too_long = [(index, length) for index, length in enumerate(lengths) if length > room]
    if not too_long:
        return
    longest = max(length for _, length in too_long)
    special = tokenizer.num_special_tokens_to_add(pair=True)
    raise InvalidDataError(
        "questions",
        [
            Fault(
                repr(rows[index]["text"][:60]),
                f"has {length} tokens; beside a context there is room for {max(room, 0)} in data.max_length "
                f"{max_length}",
            )
            for index, length in too_long[:_LISTED_FAULTS]
        ],
        todo=f"shorten them, or train with data.max_length {2 * (longest + special)} or more",
        total=len(too_long),
    )


def shorten_questions(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], max_length: int
) -> list[Row]:
    """Return rows whose questions leave enough of a window to their context: longer ones lose their end."""
    room = _measure_room(tokenizer, max_length)
    return [
        row if len(ends) <= room else {**row, "text": row["text"][: ends[room - 1]]}
        for row, ends in zip(rows, _list_ends(tokenizer, rows), strict=True)
    ]


def _measure_room(tokenizer: "PreTrainedTokenizerBase", max_length: int) -> int:
    """Return the most tokens of a question."""
    return max_length - tokenizer.num_special_tokens_to_add(pair=True) - 2 * compute_overlap(max_length)


def _list_ends(tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row]) -> list[list[int]]:
    """Return for each token of each question the character at which it ends."""
    if not rows:
        return []
    encoded = tokenizer(
        [row["text"] for row in rows], add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    return [[end for _, end in offsets] for offsets in encoded["offset_mapping"]]


def _make_window(tokenizer: "PreTrainedTokenizerBase", encoded: Any, index: int, row: int) -> Window:
    # Padding makes the mask of attention: it would be all ones here.
    names = [name for name in tokenizer.model_input_names if name in encoded and name != "attention_mask"]
    features = {name: np.asarray(encoded[name][index], dtype=np.int32) for name in names}
    words = features["input_ids"]
    context = [token for token, part in enumerate(encoded.sequence_ids(index)) if part == _CONTEXT]
    offsets = encoded["offset_mapping"][index]
    characters: Any = np.asarray([offsets[token] for token in context], dtype=np.int32)
    mark = tokenizer.cls_token_id
    marks = np.flatnonzero(words == (-1 if mark is None else mark))
    return Window(
        row=row,
        features=features,
        nothing=int(marks[0]) if len(marks) else 0,
        first=context[0] if context else 0,
        characters=characters.reshape(-1, 2),
    )
