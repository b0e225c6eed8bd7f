"""What a metric compares, and what it returns."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorry_components.data.rows import Label

Target = Label | tuple[Label, ...]
"""What a prediction is compared with: a label, or all the labels that are right for the same input."""

Prediction = dict[str, Any]
"""The answer to one row, by field; which fields there are depends on the task type."""

Scorer = Callable[[NDArray[np.intp]], float]
"""Returns the value of a metric on some rows, given by their numbers: a bootstrap draws many such sets."""

Metric = Callable[[Sequence[Target], Sequence[Prediction]], Scorer]
"""Looks once at all targets and predictions, so that scoring a set of rows costs little."""


def list_right(target: Target) -> tuple[Label, ...]:
    """Return all labels that are right for an input, one or more."""
    return target if isinstance(target, tuple) else (target,)
