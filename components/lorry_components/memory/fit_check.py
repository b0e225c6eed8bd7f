"""Whether a task fits the resources that it asks for.

What surely fits is told by a bound over the configuration's sizes, in milliseconds and without torch; only
the rest is planned in full.
"""

import re
from collections.abc import Iterator

from lorry_components.memory.gpus import GIB, MIB, recognise_device
from lorry_components.memory.plan import TaskPlan
from lorry_components.memory.upper_bounds import bound_training
from lorry_components.models.configuration import BaseConfiguration
from lorry_components.tasks.checks import find_method
from lorry_registry.errors import Fault
from lorry_registry.task_spec import TaskSpec

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


def check_fits(spec: TaskSpec, plan: TaskPlan) -> Iterator[Fault]:
    """Compare the low end of a plan with what the task asks for: what does not fit then never will.

    On processors that is ``resources.memory``. With accelerators it is the memory of one of them, where
    ``resources.node_selector`` names a kind that is known, since each holds a replica; and
    ``resources.memory`` for the base that each process loads there first. Beside memory it is the limit of
    the adapter's size, and a batch that is to be divided.
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
    memory = parse_memory(resources.memory)
    if on_machine.low > memory:
        yield Fault(
            "resources.memory",
            f"{resources.memory} is less than {plan.method} takes, {on_machine.low / GIB:.1f} GiB at least "
            f"and up to {on_machine.high / GIB:.1f} GiB",
        )
    device = recognise_device(resources.node_selector) if resources.count else None
    if device is not None and plan.training.low > device.usable:
        fitting = plan.smallest_device.name if plan.smallest_device else "no single GPU"
        yield Fault(
            "resources.node_selector",
            f"{plan.method} takes {plan.training.low / GIB:.1f} GiB at least, and {device.name} has "
            f"{device.usable / GIB:.1f} GiB",
            f"{fitting} would hold it",
        )


def _check_adapter(spec: TaskSpec, plan: TaskPlan) -> Iterator[Fault]:
    method = find_method(spec)
    limit = spec.method.max_adapter_mib or method.max_adapter_mib
    # Of methods that store what changed, less than all may have.
    if limit is not None and not method.copies_trained and plan.adapter_bytes > limit * MIB:
        yield Fault(
            "method.max_adapter_mib",
            f"the adapter will take {plan.adapter_bytes / MIB:.1f} MiB, above the limit of {limit:g} MiB",
            "choose fewer targets or a lower rank, or raise it",
        )


def is_surely_small(spec: TaskSpec, base: BaseConfiguration) -> bool:
    """Return whether the task fits whatever its method does; False where that is not certain."""
    needed = bound_training(spec, base.values)
    processes = max(1, spec.resources.count)
    if needed is None or spec.train.batch_size % processes:
        return False
    # Each of several processes loads the base, and another one has started them.
    on_machine = needed if processes == 1 else processes * needed + GIB
    fits = on_machine <= parse_memory(spec.resources.memory)
    if spec.resources.count:
        device = recognise_device(spec.resources.node_selector)
        return fits and (device is None or needed <= device.usable)
    return fits


def parse_memory(quantity: str) -> int:
    """Return the bytes of a quantity as Kubernetes writes it, such as ``4Gi``."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", quantity)
    assert match is not None
    return int(float(match.group(1)) * _UNITS[match.group(2)])
