"""ROUGE-L: the longest common subsequence of words.

Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries. As in the evaluation of the E2E challenge
and of COCO captions: the best precision and the best recall over all references, with beta 1.2.
"""

from collections.abc import Sequence

from lorry_components.metrics.base import MeanScorer, Prediction, Scorer, Target
from lorry_components.metrics.words import pair_up, split_words

_BETA = 1.2


def score_rouge_l(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Mean over rows of the F-measure, 0 to 1."""
    return MeanScorer([compute_rouge_l(refs, text) for refs, text in pair_up(targets, predictions)])


def compute_rouge_l(references: Sequence[str], text: str) -> float:
    """Return the F-measure of one text."""
    guess = split_words(text)
    precision = recall = 0.0
    for reference in map(split_words, references):
        common = count_common(reference, guess)
        if common:
            precision = max(precision, common / len(guess))
            recall = max(recall, common / len(reference))
    if not precision:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def count_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    lengths = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for index, other in enumerate(second, start=1):
            above = lengths[index]
            lengths[index] = diagonal + 1 if word == other else max(above, lengths[index - 1])
            diagonal = above
    return lengths[-1]
