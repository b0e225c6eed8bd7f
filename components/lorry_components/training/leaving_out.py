"""A method that changes the base before its first step, left out where it is no better than the base alone.

Most methods begin as the base under a fitted head, and a training that ends worse goes back there. Drawn soft
tokens are something else than the base from the start, and no training goes back to that by itself.
"""

from collections.abc import Sequence

import numpy as np

from lorry_components.data.examples import Example
from lorry_components.metrics.differences import estimate_difference
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_components.training.linear_probe import LinearProbe, write_into_head
from lorry_components.training.setup import Setup
from lorry_registry.manifest import ParameterCounts
from lorry_registry.task_spec import EvaluateSpec


def leave_out_unless_better(
    setup: Setup,
    probe: LinearProbe,
    validation: Sequence[Example],
    labels: Sequence[str] | None,
    asked: EvaluateSpec,
) -> str:
    """Leave the method out, and let the head be the linear probe, unless validation likes the method better.

    By more than a standard error of the paired difference: the ends of such trainings scatter, and a hundred
    rows do not tell luck from learning.

    Args:
        setup: What was trained; its head answers in the targets' own units.
        probe: The linear probe of the frozen base.
        validation: The rows that decide.
        labels: The classes, or None.
        asked: The metrics that the task asks for.

    Returns:
        Why the method was left out; "": it was not.
    """
    task_type = setup.task_type
    assert isinstance(task_type, SequenceHeadTaskType)
    was_training = setup.model.training
    setup.model.train(mode=False)
    rows = [example.row for example in validation]
    ended = task_type.compute_outputs(setup.model, setup.reader, rows, labels, lambda _done: None)
    setup.model.train(mode=was_training)
    targets = [example.label for example in validation]
    with_method, without = (task_type.decode_outputs(each, labels) for each in (ended, probe.answers))
    names = task_type.choose_metrics(asked)
    metric = task_type.find_metric(names[0], task_type.find_positive(names, asked.positive, with_method))
    score, score_without = metric(targets, with_method), metric(targets, without)
    gain = estimate_difference(score, score_without, len(targets))
    if gain.value > gain.error:
        return ""
    setup.method.leave_out(setup.model)
    write_into_head(setup, probe, None)
    everything = np.arange(len(targets))
    return (
        f"{names[0]} on validation was {score_without(everything):.3f} without {setup.method.name} and "
        f"{score(everything):.3f} with it, where a standard error is {gain.error:.3f}"
    )


def count_without(parameters: ParameterCounts) -> ParameterCounts:
    """Return the parameters of an adapter that is nothing but its head."""
    return parameters.model_copy(update={"adapter": 0, "total": parameters.total - parameters.adapter})
