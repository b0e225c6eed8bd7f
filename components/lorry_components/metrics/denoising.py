"""The metric of a UNet that predicts the noise in an image."""

from collections.abc import Sequence

import numpy as np

from lorry_components.metrics.base import MeanScorer, Prediction, Scorer, SumScorer, Target


def score_noise_error(_targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Mean squared error of the predicted noise: the loss of training. Lower is better."""
    return MeanScorer([prediction["noise_error"] for prediction in predictions])


def score_denoising(_targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Share of the noise that is predicted: 1 is all of it, 0 no better than predicting zeros."""
    counts = np.asarray([(guess["noise_error"], guess["noise_power"]) for guess in predictions])
    return SumScorer(counts, lambda sums: 1.0 - float(sums[0] / sums[1]))
