"""METEOR 1.5 for English, with its exact and its stem matches.

Denkowski and Lavie 2014, Meteor Universal: Language Specific Translation Evaluation for Any Target Language
(https://aclanthology.org/W14-3348/). E2E and COCO are published with it. The weights, the function words,
the search for an alignment and the way in which rows are added up are those of its program for English, so
that scores are its own where it is run with the modules ``exact stem``. Its other two modules, WordNet's
synonyms and a table of paraphrases, are a download of 60 MB, and left out: they add about .01.

Words are those that reach the program in COCO's and E2E's evaluation: the Penn Treebank's in lower case,
without punctuation, which the program divides at hyphens and apostrophes.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lorry_components.metrics.base import Prediction, Scorer, Target
from lorry_components.metrics.words import pair_up

# Tuned to rank the systems of WMT: how much recall weighs, the penalty's power and its share, and how much a
# word weighs that is no function word.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_EXACT, _STEM = 0, 1
_MODULE_WEIGHTS = (1.0, 0.6)
_BEAM = 40
# The words and signs that are more than a thousandth of a text, which weigh less than others.
_LISTED = """
the , . to of and a in that for " is on 's it with was as said at he by be from have has are
his but an this not i will \u2019 they ) -rrb- ( -lrb- who their had we which were been more or s its would
about new one after you : also up when there than $ all out her people she year two - can if last first
\u201c over other \u201d into some what so -- no time years could ? 't \u2014 '
"""
_FUNCTION_WORDS = frozenset(_LISTED.split())
_TOKEN = re.compile(
    r"n't\b|'(?:s|m|d|re|ve|ll)\b|[()$£€#%&@+*/=]|can(?=not\b)|\w+?(?=n't\b)|\w+(?:[.,:]\d+)*"
)
# The names that the Penn Treebank has for signs.
_SIGNS = {"(": "-lrb-", ")": "-rrb-", "£": "#"}

Row = tuple[float, ...]
"""What is counted of a text and a reference, and added up over rows.

Words and function words of each; matched content and function words of each, by module; chunks.
"""


class _Path(NamedTuple):
    """An alignment of the first words of a reference.

    Attributes:
        exact: How many words are matched exactly.
        chunks: The closed runs that are side by side in both texts.
        distance: How far apart matched words are.
        end: The position in the text behind the last match, if it is of the last word; None: it is not.
        used: The words of the text that are matched, as bits.
        pairs: The matches, each as (position in the text, position in the reference, module).
    """

    exact: int
    chunks: int
    distance: int
    end: int | None
    used: int
    pairs: tuple[tuple[int, int, int], ...]

    def match(self, index: int, place: int, module: int) -> "_Path":
        """Return the path with one more match."""
        return _Path(
            # The program adds half a word for a stem to a whole number, which leaves it as it is.
            self.exact + (module == _EXACT),
            self.chunks + (self.end is not None and self.end != index),
            self.distance,
            index + 1,
            self.used | 1 << index,
            (*self.pairs, (index, place, module)),
        )

    def skip(self, distance: int) -> "_Path":
        """Return the path with the reference's next word left unmatched."""
        return _Path(self.exact, self.chunks + (self.end is not None), distance, None, self.used, self.pairs)

    def move(self, distance: int) -> "_Path":
        """Return the path with another distance."""
        return _Path(self.exact, self.chunks, distance, self.end, self.used, self.pairs)


def score_meteor_1_5(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """METEOR 1.5 of all rows together, 0 to 1: what is counted is added up over the rows.

    Of several references a row is compared with the one that it is nearest to.
    """
    stem = _load_stemmer()
    split = cache(split_tokens)
    rows = np.asarray(
        [
            max((count_row(split(text), split(truth), stem) for truth in references), key=_compute)
            for references, text in pair_up(targets, predictions)
        ],
        dtype=np.float64,
    )
    return lambda draw: _compute(rows[draw].sum(axis=0))


def split_tokens(text: str) -> tuple[str, ...]:
    """Return the words of a text as the program sees them."""
    return tuple(
        part for word in _TOKEN.findall(text.lower().replace("\u2019", "'")) for part in _divide(word)
    )


def count_row(guess: Sequence[str], truth: Sequence[str], stem: Callable[[str], str]) -> Row:
    """Align the words of a text with a reference's, and count.

    Where all words of both are one chunk there is nothing to pay for, and it counts as none.
    """
    pairs = align(guess, truth, stem)
    chunks = _count_chunks(pairs)
    is_whole = chunks == 1 and len(pairs) == len(guess) == len(truth)
    matched = np.zeros((len(_MODULE_WEIGHTS), 2, 2))
    for index, place, module in pairs:
        matched[module, 0, int(guess[index] in _FUNCTION_WORDS)] += 1
        matched[module, 1, int(truth[place] in _FUNCTION_WORDS)] += 1
    lengths = [(len(words), sum(word in _FUNCTION_WORDS for word in words)) for words in (guess, truth)]
    return (*lengths[0], *lengths[1], *map(float, matched.flat), 0 if is_whole else chunks)


def align(
    guess: Sequence[str], truth: Sequence[str], stem: Callable[[str], str]
) -> list[tuple[int, int, int]]:
    """Return the best alignment that a beam finds: (position in the text, in the reference, module).

    Most exact matches win, then fewest chunks, then the shortest distance.
    """
    candidates = _list_candidates(guess, truth, stem)
    fixed = _find_fixed(candidates, len(guess))
    start = 0
    for index, _ in fixed.values():
        start |= 1 << index
    paths = [_Path(0, 0, 0, None, start, ())]
    for place, matches in enumerate(candidates):
        paths = sorted(paths, key=_rank)[:_BEAM]
        if place in fixed:
            index, module = fixed[place]
            step = abs(place - index)
            paths = [path.match(index, place, module).move(path.distance + step) for path in paths]
        else:
            paths = [further for path in paths for further in _branch(path, place, matches)]
    ends = [path.skip(path.distance) for path in sorted(paths, key=_rank)[:_BEAM]]
    return list(min(ends, key=_rank).pairs)


def _branch(path: _Path, place: int, matches: Sequence[tuple[int, int]]) -> Iterator[_Path]:
    """Yield the paths that go on from one: each match of a word of the reference, and none."""
    distance = path.distance
    for index, module in matches:
        if not path.used >> index & 1:
            yield path.move(distance).match(index, place, module)
            # The program adds it here, to the paths that come after.
            distance += abs(place - index)
    yield path.skip(distance)


def _list_candidates(
    guess: Sequence[str], truth: Sequence[str], stem: Callable[[str], str]
) -> list[list[tuple[int, int]]]:
    """Return for each word of a reference the words that match it: (position in the text, module)."""
    exact = [[(index, _EXACT) for index, word in enumerate(guess) if word == other] for other in truth]
    if list(guess) == list(truth):
        return exact
    stems = [stem(word) for word in guess]
    for found, other in zip(exact, truth, strict=True):
        root = stem(other)
        found += [
            (index, _STEM) for index, word in enumerate(guess) if stems[index] == root and word != other
        ]
    return exact


def _find_fixed(candidates: Sequence[Sequence[tuple[int, int]]], words: int) -> dict[int, tuple[int, int]]:
    """Return the matches of words that match nothing else, by the reference's position."""
    covered = [0] * words
    for matches in candidates:
        for index, _ in matches:
            covered[index] += 1
    return {
        place: matches[0]
        for place, matches in enumerate(candidates)
        if len(matches) == 1 and covered[matches[0][0]] == 1
    }


def _rank(path: _Path) -> tuple[int, int, int]:
    return -path.exact, path.chunks, path.distance


def _count_chunks(pairs: Sequence[tuple[int, int, int]]) -> int:
    """Return the number of runs that are side by side in both texts."""
    follows = {(index + 1, place + 1) for index, place, _ in pairs}
    return sum((index, place) not in follows for index, place, _ in pairs)


def _compute(counts: Iterable[float] | NDArray[np.float64]) -> float:
    guessed, guessed_function, true, true_function, *matched, chunks = counts
    by_module = np.asarray(matched).reshape(len(_MODULE_WEIGHTS), 2, 2)
    weights = np.asarray([_DELTA, 1 - _DELTA])
    found = np.einsum("msk,m,k->s", by_module, _MODULE_WEIGHTS, weights)
    if not found.all():
        return 0.0
    precision = found[0] / ((guessed - guessed_function) * weights[0] + guessed_function * weights[1])
    recall = found[1] / ((true - true_function) * weights[0] + true_function * weights[1])
    mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
    penalty = _GAMMA * (2 * chunks / by_module.sum()) ** _BETA
    return float(max(mean * (1 - penalty), 0.0))


def _divide(word: str) -> tuple[str, ...]:
    """Return what the program makes of a word of the Penn Treebank's."""
    if word == "n't":
        return "n", "'t"
    return ("'", word[1:]) if word.startswith("'") else (_SIGNS.get(word, word),)


def _load_stemmer() -> Callable[[str], str]:
    from nltk.stem.snowball import EnglishStemmer

    stem: Callable[[str], str] = cache(EnglishStemmer().stem)
    return stem
