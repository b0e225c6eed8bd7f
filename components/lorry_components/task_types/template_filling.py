"""From a template and a row to the tokens that a base reads, soft tokens among them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorry_components.data.templates import Part, Slot, Soft, Words
from lorry_registry.errors import TrainingError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LABEL = "label"


@dataclass(frozen=True, slots=True)
class Run:
    """Adjacent words and texts, which are tokenised as one."""

    parts: tuple[Words | Slot, ...]

    def fill(self, row: Mapping[str, str]) -> str:
        """Return the text of a row. White space at its end belongs to what follows."""
        return "".join(
            part.text if isinstance(part, Words) else row[part.name] for part in self.parts
        ).rstrip()


Piece = Run | Soft | None
"""What an input is put together from; None: the place of the label."""


def split_pieces(parts: Sequence[Part]) -> list[Piece]:
    """Return the pieces of a template, in order."""
    pieces: list[Piece] = []
    run: list[Words | Slot] = []
    for part in parts:
        if isinstance(part, Words) or (isinstance(part, Slot) and part.name != _LABEL):
            run.append(part)
            continue
        if run:
            pieces.append(Run(tuple(run)))
            run = []
        pieces.append(part if isinstance(part, Soft) else None)
    return [*pieces, Run(tuple(run))] if run else pieces


def fill_pieces(
    tokenizer: "PreTrainedTokenizerBase",
    pieces: Sequence[Piece],
    rows: Sequence[Mapping[str, str]],
    room: int,
) -> Iterator[list[list[int]]]:
    """Yield, for each row, the tokens of each piece; those of the label's place are left to the caller.

    Args:
        tokenizer: The base's.
        pieces: Of the template.
        rows: With the fields that the template names.
        room: How many tokens there may be; the longest text of a row is cut first.

    Raises:
        TrainingError: The template's own words leave no room.
    """
    runs = [piece for piece in pieces if isinstance(piece, Run)]
    columns = [_tokenize(tokenizer, [run.fill(row) for row in rows]) for run in runs]
    fixed = sum(piece.count for piece in pieces if isinstance(piece, Soft))
    for index, row in enumerate(rows):
        filled = [column[index] for column in columns]
        shortened = dict(row)
        while (excess := fixed + sum(map(len, filled)) - room) > 0:
            _shorten(tokenizer, shortened, excess, runs)
            filled = [_tokenize(tokenizer, [run.fill(shortened)])[0] for run in runs]
        texts = iter(filled)
        yield [
            next(texts) if isinstance(piece, Run) else piece.ids if isinstance(piece, Soft) else []
            for piece in pieces
        ]


def find_affixes(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Return what a tokeniser puts before and after a text: BERT's [CLS] and [SEP], Gemma's <bos>."""
    (inner,) = _tokenize(tokenizer, ["a"])
    whole: list[int] = tokenizer("a")["input_ids"]
    start = next(
        index for index in range(len(whole) - len(inner) + 1) if whole[index : index + len(inner)] == inner
    )
    return whole[:start], whole[start + len(inner) :]


def find_single_token(tokenizer: "PreTrainedTokenizerBase", word: str, *, after_space: bool) -> int | None:
    """Return the token of a word that is one token of the vocabulary, else None.

    Args:
        tokenizer: The base's.
        word: The word.
        after_space: Whether white space stands before it, which is part of the token for most decoders.
    """
    (context,) = _tokenize(tokenizer, ["a"]) if after_space else ([],)
    # Behind another word, for some tokenisers put white space before the first word of any text.
    (whole,) = _tokenize(tokenizer, [f"a {word}" if after_space else word])
    tokens = whole[len(context) :]
    is_one = whole[: len(context)] == context and len(tokens) == 1
    return tokens[0] if is_one and tokens[0] != tokenizer.unk_token_id else None


def _tokenize(tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> list[list[int]]:
    # transformers fails on no text at all.
    ids: list[list[int]] = [] if not texts else tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def _shorten(
    tokenizer: "PreTrainedTokenizerBase", row: dict[str, str], excess: int, runs: Sequence[Run]
) -> None:
    """Cut the longest text that a row fills in, by about so many tokens."""
    names = {part.name for run in runs for part in run.parts if isinstance(part, Slot) and row[part.name]}
    if not names:
        raise TrainingError(
            f"the template takes {excess} tokens more than there is room for, without any text",
            where="data.max_length",
            todo="raise data.max_length, or shorten the template",
        )
    lengths = {name: _tokenize(tokenizer, [row[name]])[0] for name in sorted(names)}
    longest = max(lengths, key=lambda name: len(lengths[name]))
    kept = lengths[longest][: max(0, len(lengths[longest]) - excess)]
    cut = str(tokenizer.decode(kept)).strip()
    # What is decoded may be tokenised otherwise; each round must end with less.
    row[longest] = cut if len(cut) < len(row[longest]) else row[longest][: len(row[longest]) // 2]
