"""How well a UNet predicts the noise in an image."""

from collections.abc import Sequence

import numpy as np

from lorry_components.metrics.base import Prediction, Scorer, Target


def score_noise_error(_targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Mean squared error of the predicted noise: the loss of training. Lower is better."""
    error = np.asarray([prediction["noise_error"] for prediction in predictions])
    return lambda draw: float(error[draw].mean())


def score_denoising(_targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Share of the noise that is predicted: 1 is all of it, 0 no better than predicting zeros."""
    error = np.asarray([prediction["noise_error"] for prediction in predictions])
    power = np.asarray([prediction["noise_power"] for prediction in predictions])
    return lambda draw: 1.0 - float(error[draw].sum() / power[draw].sum())
