"""Metrics of written text, each from numbers that are counted once a row.

A bootstrap draws rows a thousand times over: what is counted in a row is kept, and only sums are taken anew.
What is learned of the whole test set, the weights of words in NIST and CIDEr, stays that of the whole set.

All compare with every text that is right for a row. None needs a download.
"""

from lorry_components.metrics.cider import score_cider
from lorry_components.metrics.matching import score_exact_match, score_sql_match
from lorry_components.metrics.meteor import score_meteor
from lorry_components.metrics.ngrams import score_bleu, score_nist
from lorry_components.metrics.rouge import score_rouge_l

__all__ = [
    "score_bleu",
    "score_cider",
    "score_exact_match",
    "score_meteor",
    "score_nist",
    "score_rouge_l",
    "score_sql_match",
]
