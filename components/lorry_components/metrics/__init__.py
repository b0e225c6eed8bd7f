"""Metrics, each with its interval, and differences of two on the same rows.

::

    base              what a metric compares, and what it returns
    intervals         95 % intervals: Wilson's of shares, BCa of what is resampled
    bootstrap         draws of rows; all metrics of a test part with their intervals
    differences       two on the same rows: the interval of their difference, and how sure it is above 0
    classification    accuracy, f1, matthews
    numbers           pearson, spearman, rmse
    squad             exact match and F1 of answers cut out of a context
    ranking           precision at 1 and at 10, mean reciprocal rank
    denoising         noise that a UNet predicts
    ngrams, meteor, meteor_1_5, rouge, cider, matching    written texts; ``words`` splits them

A metric is built once from all targets and predictions, and returns what scores some of the rows: a bootstrap
draws rows a thousand times over, so what is counted in a row is kept, and only sums are taken anew. What is
learned from the whole test set, the weights of words in NIST and CIDEr, stays that of the whole set. Metrics
of written texts compare with every text that is right for a row. None needs a download.
"""

from lorry_components.metrics.base import Metric, Prediction, Scorer, Target
from lorry_components.metrics.bootstrap import estimate_metrics
from lorry_components.metrics.cider import score_cider
from lorry_components.metrics.classification import score_accuracy, score_f1, score_matthews
from lorry_components.metrics.denoising import score_denoising, score_noise_error
from lorry_components.metrics.differences import Difference, estimate_difference
from lorry_components.metrics.matching import score_exact_match, score_sql_match
from lorry_components.metrics.meteor import score_meteor
from lorry_components.metrics.meteor_1_5 import score_meteor_1_5
from lorry_components.metrics.ngrams import score_bleu, score_nist
from lorry_components.metrics.numbers import score_pearson, score_rmse, score_spearman
from lorry_components.metrics.ranking import score_mrr, score_precision_at_1, score_precision_at_10
from lorry_components.metrics.rouge import score_rouge_l
from lorry_components.metrics.squad import make_answer_metric

__all__ = [
    "Difference",
    "Metric",
    "Prediction",
    "Scorer",
    "Target",
    "estimate_difference",
    "estimate_metrics",
    "make_answer_metric",
    "score_accuracy",
    "score_bleu",
    "score_cider",
    "score_denoising",
    "score_exact_match",
    "score_f1",
    "score_matthews",
    "score_meteor",
    "score_meteor_1_5",
    "score_mrr",
    "score_nist",
    "score_noise_error",
    "score_pearson",
    "score_precision_at_1",
    "score_precision_at_10",
    "score_rmse",
    "score_rouge_l",
    "score_spearman",
    "score_sql_match",
]
