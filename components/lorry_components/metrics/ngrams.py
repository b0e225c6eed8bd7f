"""BLEU and NIST: how many n-grams of the text are in a reference, over all rows together."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lorry_components.metrics.base import Prediction, Scorer, SumScorer, Target
from lorry_components.metrics.words import pair_up

_BLEU_ORDERS = 4
_NIST_ORDERS = 5
# The penalty is a half for a text of two thirds of the reference's length.
_NIST_BETA = math.log(0.5) / math.log(1.5) ** 2
Ngram = tuple[str, ...]


def score_bleu(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """BLEU of all rows together, 0 to 1: sacrebleu's, with its tokeniser 13a and the case as it is.

    Papineni et al. 2002; Post 2018, https://arxiv.org/abs/1804.08771.
    """
    from sacrebleu.metrics.bleu import BLEU

    counter = BLEU(effective_order=True)
    rows = [counter.sentence_score(text, references) for references, text in pair_up(targets, predictions)]
    counts = np.asarray([[*row.counts, *row.totals, row.sys_len, row.ref_len] for row in rows], dtype=int)

    def score(totals: NDArray[np.intp]) -> float:
        sums = totals.tolist()
        correct, total, (length, reference) = sums[:_BLEU_ORDERS], sums[_BLEU_ORDERS:-2], sums[-2:]
        # Smoothing as corpus_score does it by default.
        return float(BLEU.compute_bleu(correct, total, length, reference, "exp").score) / 100

    return SumScorer(counts, score)


def score_nist(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """NIST of all rows together: n-grams of one to five words by their information, from 0 up.

    Doddington 2002, Automatic Evaluation of Machine Translation Quality Using N-gram Co-occurrence
    Statistics; in lower case, by tokeniser 13a. As in NIST's own mteval, n-grams are looked for in all
    references of a row, and a row's reference length is their mean; nltk takes the best single reference.
    The information of an n-gram is counted on the references of the whole test set.
    """
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenize: Callable[[str], str] = Tokenizer13a()  # type: ignore[no-untyped-call]
    rows = [
        ([tokenize(reference.lower()).split() for reference in references], tokenize(text.lower()).split())
        for references, text in pair_up(targets, predictions)
    ]
    information = _weigh_ngrams([reference for references, _ in rows for reference in references])
    counts = np.asarray([_count_row(references, text, information) for references, text in rows])
    return SumScorer(counts, _compute_nist)


def _count_ngrams(words: Sequence[str], order: int) -> Counter[Ngram]:
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


def _weigh_ngrams(references: Sequence[Sequence[str]]) -> dict[Ngram, float]:
    """Return the information of the last word of each n-gram given those before it, in bits."""
    counts: Counter[Ngram] = Counter()
    for words in references:
        for order in range(1, _NIST_ORDERS + 1):
            counts.update(_count_ngrams(words, order))
    everything = sum(map(len, references))
    return {
        ngram: math.log2((counts[ngram[:-1]] if len(ngram) > 1 else everything) / count)
        for ngram, count in counts.items()
    }


def _count_row(
    references: Sequence[Sequence[str]], text: Sequence[str], information: Mapping[Ngram, float]
) -> list[float]:
    """Return the information matched in each order, the n-grams of each order, and both lengths in words."""
    matched, totals = [], []
    for order in range(1, _NIST_ORDERS + 1):
        guess = _count_ngrams(text, order)
        known: Counter[Ngram] = Counter()
        for reference in references:
            known |= _count_ngrams(reference, order)
        matched.append(sum(information[ngram] * count for ngram, count in (guess & known).items()))
        totals.append(float(guess.total()))
    return [*matched, *totals, float(len(text)), sum(map(len, references)) / len(references)]


def _compute_nist(sums: NDArray[np.float64]) -> float:
    matched, totals = sums[:_NIST_ORDERS], sums[_NIST_ORDERS:-2]
    length, reference = sums[-2:]
    if not length:
        return 0.0
    penalty = math.exp(_NIST_BETA * math.log(min(1.0, length / reference)) ** 2)
    return float(penalty * np.divide(matched, totals, out=np.zeros_like(matched), where=totals > 0).sum())
