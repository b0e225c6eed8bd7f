"""Shares of rows whose text is the right one, letter by letter or as a query."""

import re
from collections.abc import Callable, Hashable, Sequence

from lorry_components.metrics.base import MeanScorer, Metric, Prediction, Scorer, Target
from lorry_components.metrics.words import pair_up

_QUOTES = str.maketrans(dict.fromkeys('"`\u2018\u2019\u201c\u201d', "'"))
_QUERY = re.compile(r"select (?P<what>.+?) from (?P<rest>.+)")
_AGGREGATE = re.compile(r"(count|max|min|sum|avg) ?\( ?(.+?) ?\)")
# A condition ends in a quoted value or in a number: 'and' inside a value parts nothing.
_BETWEEN_CONDITIONS = re.compile(r"(?<=['\d]) and ")
_CONDITION = re.compile(r"(.+?) ?(<=|>=|<>|!=|=|<|>) ?(.+)")


def _score_equal(normalise: Callable[[str], Hashable]) -> Metric:
    def prepare(targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
        return MeanScorer(
            [
                normalise(text) in {normalise(reference) for reference in references}
                for references, text in pair_up(targets, predictions)
            ]
        )

    return prepare


def normalise_text(text: str) -> str:
    """Return a text with each stretch of white space as one space, and none around it."""
    return " ".join(text.split())


def normalise_sql(text: str) -> Hashable:
    """Return what of a query decides its answer, for equal queries to be equal.

    That is the selected column with its aggregate, and the set of conditions, as WikiSQL's own comparison
    has it (Zhong et al. 2017, https://arxiv.org/abs/1709.00103): neither the order of conditions nor the case
    of words and values matters, nor do white space and the kind of quotation marks. The table behind FROM is
    left out: it is an identifier that no question mentions. A text that is no query stands for itself.
    """
    plain = normalise_text(text.translate(_QUOTES)).rstrip("; ").casefold()
    query = _QUERY.fullmatch(plain)
    if query is None:
        return plain
    _, _, conditions = query["rest"].partition(" where ")
    return (
        _AGGREGATE.sub(r"\1 \2", query["what"]),
        frozenset(_normalise_condition(part) for part in _BETWEEN_CONDITIONS.split(conditions) if part),
    )


def _normalise_condition(text: str) -> Hashable:
    condition = _CONDITION.fullmatch(text)
    if condition is None:
        return text
    column, operator, value = condition.groups()
    return column, operator, value.strip("' ")


score_exact_match = _score_equal(normalise_text)
"""Share of rows whose text is a right one, but for white space."""

score_sql_match = _score_equal(normalise_sql)
"""Share of rows whose query is a right one: see :func:`normalise_sql`."""
