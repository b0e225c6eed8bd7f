"""METEOR with exact and stemmed words.

Banerjee and Lavie 2005, METEOR: An Automatic Metric for MT Evaluation with Improved Correlation with Human
Judgments. Words are aligned first where they are equal, then where their stems are (Porter). The paper's
third stage, synonyms of WordNet, is left out: WordNet is a download. Figures are about twice those of METEOR
1.5, with which E2E is published; that is :mod:`~lorry_components.metrics.meteor_1_5`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lorry_components.metrics.base import Prediction, Scorer, Target
from lorry_components.metrics.words import pair_up, split_words

# Recall weighs nine times as much as precision; the penalty is at most one half.
_RECALL_WEIGHT = 9.0
_PENALTY = 0.5
_PENALTY_POWER = 3.0

Counts = tuple[int, int, int, int]
"""Of a text and a reference: matched words, chunks, words of the text, words of the reference."""


def score_meteor(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """METEOR of all rows together, 0 to 1: matches, chunks and lengths are added up over the rows.

    Of several references a row is compared with the one that it is nearest to.
    """
    stem = _load_stemmer()
    rows = np.asarray(
        [
            max((count_matches(reference, text, stem) for reference in references), key=_compute)
            for references, text in pair_up(targets, predictions)
        ],
        dtype=np.float64,
    )
    return lambda draw: _compute(rows[draw].sum(axis=0))


def count_matches(reference: str, text: str, stem: Callable[[str], str]) -> Counts:
    """Align the words of a text with a reference's, and count."""
    guess, truth = split_words(text), split_words(reference)
    alignment: dict[int, int] = {}
    _align(guess, truth, alignment)
    _align([*map(stem, guess)], [*map(stem, truth)], alignment)
    return len(alignment), _count_chunks(alignment), len(guess), len(truth)


def _align(guess: Sequence[str], truth: Sequence[str], alignment: dict[int, int]) -> None:
    """Add pairs of equal words to an alignment, the longest runs first, for there to be few chunks."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, word in enumerate(truth):
        places[word].append(place)
    free = set(range(len(truth))) - set(alignment.values())
    pairs = [
        (index, place)
        for index, word in enumerate(guess)
        if index not in alignment
        for place in places[word]
        if place in free
    ]
    while pairs:
        equal = set(pairs)
        runs = [(_measure_run(pair, equal), *pair) for pair in pairs]
        length, index, place = max(runs, key=lambda run: _rank(run, alignment))
        for step in range(length):
            alignment[index + step] = place + step
            free.remove(place + step)
        pairs = [(index, place) for index, place in pairs if index not in alignment and place in free]


def _rank(run: tuple[int, int, int], alignment: dict[int, int]) -> tuple[int, int, int]:
    """Prefer the longest run, then one that joins on to what is aligned, then the nearest."""
    length, index, place = run
    joins = (alignment.get(index - 1) == place - 1) + (alignment.get(index + length) == place + length)
    return length, joins, -abs(index - place)


def _measure_run(pair: tuple[int, int], equal: set[tuple[int, int]]) -> int:
    """Return how many words in a row are equal from a pair of positions on."""
    index, place = pair
    run = 1
    while (index + run, place + run) in equal:
        run += 1
    return run


def _count_chunks(alignment: dict[int, int]) -> int:
    """Return the least number of runs that are side by side in both texts."""
    return sum(alignment.get(index - 1, -2) != place - 1 for index, place in alignment.items())


def _compute(counts: Iterable[float] | NDArray[np.float64]) -> float:
    matches, chunks, guessed, true = counts
    if not matches:
        return 0.0
    precision, recall = matches / guessed, matches / true
    mean = (1 + _RECALL_WEIGHT) * precision * recall / (recall + _RECALL_WEIGHT * precision)
    return float(mean * (1 - _PENALTY * (chunks / matches) ** _PENALTY_POWER))


def _load_stemmer() -> Callable[[str], str]:
    from nltk.stem.porter import PorterStemmer

    stem: Callable[[str], str] = cache(PorterStemmer().stem)
    return stem
