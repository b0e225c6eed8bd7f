"""The fallback to the linear probe after a training that ends worse: one rule for all methods.

A training under a fitted head that ends worse on the validation rows, and not merely by chance, is given up.
Most methods began as the base under that head and go back there. Soft tokens change the base from the start,
and are left out of the adapter instead. Measured in the lab book, "Which of the two is kept".
"""

from collections.abc import Sequence
from pathlib import Path

from lorry_components.data.examples import Example
from lorry_components.metrics.randomization import estimate_chance_of_loss
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_components.training.checkpoints.checkpoint_files import load_trained
from lorry_components.training.probe.linear_probe import LinearProbe, write_into_head
from lorry_components.training.setup.model_setup import Setup
from lorry_registry.manifest import ParameterCounts
from lorry_registry.tasks.task_spec import EvaluateSpec

# Of ends that are as good as the probe, at most this share is given up.
_CHANCE = 0.3


def give_up_worse_end(
    setup: Setup,
    probe: LinearProbe,
    validation: Sequence[Example],
    labels: Sequence[str] | None,
    asked: EvaluateSpec,
    *,
    start: Path | None,
) -> str:
    """Let a trained model be the probe if it is worse on the validation rows; return how it is, or "".

    With few rows most differences are chance: of five, one row proves nothing.

    Args:
        setup: What was trained; its head answers in the targets' own units.
        probe: The probe, with its answers for these rows.
        validation: The rows that decide.
        labels: The classes, or None.
        asked: The metrics that the task asks for.
        start: The folder with the weights that training began with; None: the method is left out.
    """
    task_type = setup.task_type
    assert isinstance(task_type, SequenceHeadTaskType)
    was_training = setup.model.training
    setup.model.train(mode=False)
    rows = [example.row for example in validation]
    outputs = task_type.compute_outputs(setup.model, setup.reader, rows, labels, lambda _done: None)
    setup.model.train(mode=was_training)
    targets = [example.label for example in validation]
    ended, begun = (task_type.decode_outputs(each, labels) for each in (outputs, probe.answers))
    names = task_type.choose_metrics(asked)
    metric = task_type.find_metric(names[0], task_type.find_positive(names, asked.positive, ended))
    loss = estimate_chance_of_loss(metric, targets, ended, begun, resamples=asked.resamples)
    if loss.chance > _CHANCE:
        return ""
    if start is None:
        setup.method.leave_out(setup.model)
        before, after = f"without {setup.method.name}", "with it"
    else:
        load_trained(setup.model, setup.method, start)
        before, after = "when training began", "in the end"
    write_into_head(setup, probe, None)
    return (
        f"{names[0]} on {len(targets)} validation rows was {loss.other:.3f} {before} and {loss.value:.3f} "
        f"{after} (p = {loss.chance:.2g})"
    )


def count_without(parameters: ParameterCounts) -> ParameterCounts:
    """Return the parameters of an adapter that is nothing but its head."""
    return parameters.model_copy(update={"adapter": 0, "total": parameters.total - parameters.adapter})
