"""The length of a training and its batch size: as the task says, or as its rows need.

Three epochs of few rows are few optimiser steps, in which a new head has hardly begun to learn. Where a task
leaves its length open, such rows are trained on in smaller batches and for a least number of steps; what was
measured stands in the lab book, "Few rows".
"""

import math
from dataclasses import dataclass

from lorry_registry.tasks.task_spec import TrainSpec

DEFAULT_EPOCHS = 3.0
LEAST_STEPS = 100
"""Optimiser steps of a training whose length the task leaves open."""

SMALL_BATCH = 8
"""Rows in a batch of such a training where that makes more steps."""


@dataclass(frozen=True, slots=True)
class Length:
    """How long a training is.

    Attributes:
        batch_size: Rows in one forward pass, those of all processes together.
        steps: Optimiser steps.
        epochs: Passes over the rows that these are; None: the steps decide.
    """

    batch_size: int
    steps: int
    epochs: float | None


def choose_length(train: TrainSpec, rows: int, *, processes: int = 1) -> Length:
    """Return how long a task trains on so many rows.

    Args:
        train: The task's section.
        rows: The encoded training rows, at least one.
        processes: The processes that share a batch.
    """
    size = train.batch_size
    if train.steps is not None:
        return Length(size, train.steps, None)
    epochs = train.epochs or DEFAULT_EPOCHS
    steps = math.ceil(epochs * _count_steps(train, rows, size))
    if train.epochs is not None or steps >= LEAST_STEPS:
        return Length(size, steps, epochs)
    # As few as they may be, the processes share them equally.
    small = min(size, math.ceil(SMALL_BATCH / processes) * processes)
    steps = math.ceil(epochs * _count_steps(train, rows, small))
    return Length(small, LEAST_STEPS, None) if steps < LEAST_STEPS else Length(small, steps, epochs)


def may_take_small_batches(train: TrainSpec) -> bool:
    """Return whether a task's batches are smaller than it says where its rows are few."""
    return train.steps is None and train.epochs is None and train.batch_size > SMALL_BATCH


def _count_steps(train: TrainSpec, rows: int, batch_size: int) -> int:
    """Return the optimiser steps of one epoch."""
    return math.ceil(rows / (batch_size * train.gradient_accumulation))
