"""Trivial baselines, which what was learned must beat."""

from collections import Counter
from collections.abc import Sequence

from lorry_components.data.rows import Label
from lorry_components.metrics.base import Target, list_right

COMMON_ANSWER = "most frequent answer"


def find_most_common(answers: Sequence[Label]) -> str:
    """Return the answer that most training rows have; of several the one that comes first."""
    return str(Counter(answers).most_common(1)[0][0])


def find_common_answer(targets: Sequence[Target], answers: Sequence[str]) -> str | None:
    """Return the answer that all rows get, where no label is right for all of them; None: they differ."""
    if len(set(answers)) != 1:
        return None
    right = [set(map(str, list_right(target))) for target in targets]
    return answers[0] if not set.intersection(*right) else None
