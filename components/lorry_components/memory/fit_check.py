"""A check that a task fits the resources that it asks for.

An upper bound from the configuration's sizes, computed in milliseconds and without torch, recognizes tasks
that certainly fit; only the others are planned in full.
"""

from collections.abc import Iterator

from lorry_components.memory.gpus import recognise_device
from lorry_components.memory.plan import TaskPlan
from lorry_components.memory.upper_bounds import bound_training
from lorry_components.models.configuration import BaseConfiguration
from lorry_components.tasks.definition import find_method
from lorry_registry.errors import Fault
from lorry_registry.tasks.task_spec import TaskSpec
from lorry_registry.text.sizes import GIB, MIB, format_in, parse_size


def check_fits(spec: TaskSpec, plan: TaskPlan) -> Iterator[Fault]:
    """Compare the low end of a plan with what the task asks for: if that does not fit, nothing will.

    Without accelerators, memory is compared with ``resources.memory``. With accelerators, it is compared with
    the memory of one of them, if ``resources.node_selector`` names a known model, since each holds a replica;
    and ``resources.memory`` must hold the base that each process loads there first. The limit of the
    adapter's size and the division of batches are checked as well.
    """
    resources = spec.resources
    if spec.train.batch_size % plan.processes:
        yield Fault(
            "train.batch_size",
            f"a batch of {spec.train.batch_size} cannot be divided among {plan.processes} processes",
            f"choose a multiple of {plan.processes}, or another resources.count",
        )
    yield from _check_adapter(spec, plan)
    on_machine = plan.training if plan.host is None else plan.host
    memory = parse_size(resources.memory)
    if on_machine.low > memory:
        yield Fault(
            "resources.memory",
            f"{resources.memory} is less than {plan.method} takes: at least "
            f"{format_in(on_machine.low, 'GiB')} and up to {format_in(on_machine.high, 'GiB')}",
        )
    device = recognise_device(resources.node_selector) if resources.count else None
    if device is not None and plan.training.low > device.usable:
        fitting = plan.smallest_device.name if plan.smallest_device else "no single GPU"
        yield Fault(
            "resources.node_selector",
            f"{plan.method} takes at least {format_in(plan.training.low, 'GiB')}, and {device.name} has "
            f"{format_in(device.usable, 'GiB')}",
            f"{fitting} is large enough",
        )


def _check_adapter(spec: TaskSpec, plan: TaskPlan) -> Iterator[Fault]:
    method = find_method(spec)
    limit = spec.method.max_adapter_mib or method.max_adapter_mib
    # A method that stores what changed may store less than it trains.
    if limit is not None and not method.copies_trained and plan.adapter_bytes > limit * MIB:
        yield Fault(
            "method.max_adapter_mib",
            f"the adapter will take {format_in(plan.adapter_bytes, 'MiB')}, above the limit of {limit:g} MiB",
            "choose fewer targets or a lower rank, or raise the limit",
        )


def is_surely_small(spec: TaskSpec, base: BaseConfiguration) -> bool:
    """Return whether the task fits for any method; False if that is not certain."""
    needed = bound_training(spec, base.values)
    processes = max(1, spec.resources.count)
    if needed is None or spec.train.batch_size % spec.resources.processes:
        return False
    # Each of several processes loads the base, and one more has started them.
    on_machine = needed if processes == 1 else processes * needed + GIB
    fits = on_machine <= parse_size(spec.resources.memory)
    if spec.resources.count:
        device = recognise_device(spec.resources.node_selector)
        return fits and (device is None or needed <= device.usable)
    return fits
