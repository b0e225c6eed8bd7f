"""CIDEr-D: cosines between weighted n-grams.

Vedantam et al. 2015, https://arxiv.org/abs/1411.5726, as in the evaluation of COCO captions, where it is
called CIDEr: n-grams of one to four words, counts clipped to the reference's, a Gaussian penalty on the
difference in length (sigma 6), and ten times the mean. An n-gram weighs the less, the more rows of the test
set have it in their references.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorry_components.metrics.base import MeanScorer, Prediction, Scorer, Target
from lorry_components.metrics.words import pair_up, split_words

_ORDERS = 4
_SIGMA = 6.0
_SCALE = 10.0
Ngram = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Vector:
    """A text: for each order its n-grams' weights and their norm; and how many pairs of words it has."""

    weights: tuple[Mapping[Ngram, float], ...]
    norms: tuple[float, ...]
    pairs: int


def score_cider(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Mean over rows, 0 to 10. Of a single row all n-grams weigh nothing, and it is 0."""
    rows = [
        ([_count_ngrams(reference) for reference in references], _count_ngrams(text))
        for references, text in pair_up(targets, predictions)
    ]
    frequencies = Counter(ngram for counted, _ in rows for ngram in set().union(*counted))
    return MeanScorer([_compare(counted, guess, frequencies, len(rows)) for counted, guess in rows])


def _count_ngrams(text: str) -> Counter[Ngram]:
    words = split_words(text)
    return Counter(
        tuple(words[start : start + order])
        for order in range(1, _ORDERS + 1)
        for start in range(len(words) - order + 1)
    )


def _compare(
    references: Sequence[Counter[Ngram]], guess: Counter[Ngram], frequencies: Mapping[Ngram, int], rows: int
) -> float:
    hypothesis = _weigh(guess, frequencies, rows)
    scores = [_measure(hypothesis, _weigh(reference, frequencies, rows)) for reference in references]
    return _SCALE * sum(scores) / len(scores)


def _weigh(counts: Counter[Ngram], frequencies: Mapping[Ngram, int], rows: int) -> _Vector:
    weights: tuple[dict[Ngram, float], ...] = tuple({} for _ in range(_ORDERS))
    for ngram, count in counts.items():
        rarity = math.log(rows) - math.log(max(1, frequencies.get(ngram, 0)))
        weights[len(ngram) - 1][ngram] = count * rarity
    norms = tuple(math.sqrt(sum(weight**2 for weight in order.values())) for order in weights)
    return _Vector(weights, norms, sum(count for ngram, count in counts.items() if len(ngram) == 2))


def _measure(hypothesis: _Vector, reference: _Vector) -> float:
    # COCO's code measures lengths in pairs of words.
    penalty = math.exp(-((hypothesis.pairs - reference.pairs) ** 2) / (2 * _SIGMA**2))
    total = 0.0
    for order in range(_ORDERS):
        norm = hypothesis.norms[order] * reference.norms[order]
        if norm:
            known = reference.weights[order]
            shared = sum(
                min(weight, known[ngram]) * known[ngram]
                for ngram, weight in hypothesis.weights[order].items()
                if ngram in known
            )
            total += shared / norm
    return penalty * total / _ORDERS
