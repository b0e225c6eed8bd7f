"""Normalised texts and their words, which the metrics of generation compare."""

import re
from collections.abc import Sequence

from lorry_components.metrics.base import Prediction, Target, list_right

# Hyphens and apostrophes inside a word belong to it, as to the tokeniser of the Penn Treebank.
_WORD = re.compile("\\w+(?:[-'\u2019]\\w+)*")


def list_references(target: Target) -> tuple[str, ...]:
    """Return all texts that are right for a row, one or more."""
    return tuple(map(str, list_right(target)))


def pair_up(
    targets: Sequence[Target], predictions: Sequence[Prediction]
) -> list[tuple[tuple[str, ...], str]]:
    """Return the right texts and the predicted one of each row."""
    return [
        (list_references(target), str(prediction["text"]))
        for target, prediction in zip(targets, predictions, strict=True)
    ]


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())
