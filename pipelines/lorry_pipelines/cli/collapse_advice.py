"""Advice after a training that ended in one answer for all rows."""

import math

from lorry_components.training.setup.length import choose_length
from lorry_registry.tasks.task_spec import TrainSpec

# Trainings of fewer steps are hardly ever done: docs/small-data.md has what was measured.
ENOUGH_STEPS = 200


def advise_after_collapse(
    train: TrainSpec, *, steps: int | None, rows: int | None, rate: float | None
) -> str:
    """Return what to try, the most likely reason first: too few optimiser steps, then the learning rate.

    Args:
        train: How the task is trained.
        steps: How many optimiser steps were done; 0: it has no steps; None: it is not known.
        rows: How many rows it was trained on; None: it is not known.
        rate: The peak learning rate; None: it is not known.
    """
    if steps == 0:
        return "nothing is trained in steps here: more data, another base or another method may help"
    if steps is None or rows is None:
        return (
            "on small data too few optimiser steps are the usual reason: more train.epochs or a smaller "
            "train.batch_size make more of them"
        )
    if steps >= ENOUGH_STEPS:
        known = f" ({rate:.2g} here)" if rate is not None else ""
        return (
            f"it took {steps:,} optimiser steps, so that their number is hardly the reason: a lower "
            f"train.learning_rate{known} or more data may help"
        )
    per_step = choose_length(train, rows).batch_size * train.gradient_accumulation
    took = (
        f"it took only {steps:,} optimiser step{'' if steps == 1 else 's'} "
        f"({rows:,} rows, {per_step} a step), and so few are the usual reason"
    )
    if train.epochs is None:
        return f"{took}: try train.steps={ENOUGH_STEPS}"
    per_epoch = math.ceil(rows / per_step)
    epochs = math.ceil(ENOUGH_STEPS / per_epoch)
    return (
        f"{took}: train.epochs={epochs} would make {epochs * per_epoch:,} of them, and a smaller "
        "train.batch_size makes more of each epoch"
    )
