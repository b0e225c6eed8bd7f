"""Answers compared as SQuAD compares them: exact match, and F1 of words.

Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250; questions without an answer: Rajpurkar, Jia and Liang
2018, https://arxiv.org/abs/1806.03822.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from lorry_components.metrics.base import MeanScorer, Metric, Prediction, Scorer, Target

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)

ListTruths = Callable[[Target], Sequence[str]]
"""Returns the texts that are right for a row; an empty one alone: there is no answer."""


def normalise_answer(text: str) -> str:
    """Return a text in lower case without punctuation, articles and superfluous white space."""
    bare = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def compute_exact_match(truth: str, guess: str) -> float:
    """Return whether two texts are the same but for what :func:`normalise_answer` takes away: 1 or 0."""
    return float(normalise_answer(truth) == normalise_answer(guess))


def compute_f1(truth: str, guess: str) -> float:
    """Return the harmonic mean of precision and recall of the words, each as often as it occurs."""
    expected, given = normalise_answer(truth).split(), normalise_answer(guess).split()
    if not expected or not given:
        return float(expected == given)
    shared = sum((Counter(expected) & Counter(given)).values())
    return 2.0 * shared / (len(expected) + len(given))


def score_answers(
    compute: Callable[[str, str], float],
    truths: Sequence[Sequence[str]],
    predictions: Sequence[Prediction],
) -> list[float]:
    """Return for each row the best score over the texts that are right for it.

    Where the empty text alone is right, so is the empty prediction.
    """
    return [
        max(compute(truth, prediction["answer"]) for truth in texts)
        for texts, prediction in zip(truths, predictions, strict=True)
    ]


def make_answer_metric(compute: Callable[[str, str], float], list_truths: ListTruths) -> Metric:
    """Return the metric that is the mean of a score over the rows, from 0 to 1.

    Args:
        compute: Scores one right text against the predicted one.
        list_truths: Reads the right texts off a target.
    """

    def prepare(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
        truths = [list_truths(target) for target in targets]
        return MeanScorer(score_answers(compute, truths, predictions))

    return prepare
