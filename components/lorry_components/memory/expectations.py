"""Measured expectations of a method on a base of a certain size."""

from collections.abc import Callable

from lorry_components.memory.upper_bounds import bound_parameters
from lorry_components.models.configuration import BaseConfiguration
from lorry_components.models.dimensions import read_dimensions
from lorry_components.task_types import TASK_TYPES
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_registry.tasks.task_spec import TaskSpec

_SOFT_TOKENS = ("prompt-tuning", "p-tuning", "p-tuning-v2")
# Liu et al. 2022 report P-tuning v2 from 300 million parameters on; Lester et al. 2021 need more for prompts.
_SMALL_BASE = 300_000_000


def describe_expectation(spec: TaskSpec, read_base: Callable[[], BaseConfiguration]) -> str:
    """Say that a method is not expected to learn as much as others on a base; "": nothing is known of it.

    Only heads on whole texts were measured.

    Args:
        spec: The task.
        read_base: Returns the configuration of its base, where that decides.
    """
    if spec.method.name not in _SOFT_TOKENS or not _was_measured(spec.kind):
        return ""
    dimensions = read_dimensions(read_base().values)
    if dimensions is None or bound_parameters(dimensions) >= _SMALL_BASE:
        return ""
    return (
        f"{spec.method.name} is not expected to learn much on a base this small: on one of 23 million "
        "parameters soft tokens gained .02 to .04 over the linear probe where lora gained .06, in twice the "
        'time (the lab book, "Soft tokens on a small base")'
    )


def advise_on_methods(kind: str) -> str:
    """Say which methods are expected to learn less, for a task that has yet to choose one.

    Args:
        kind: The kind of the task; of one that there is not, nothing is said, and validation refuses it.
    """
    if not _was_measured(kind):
        return ""
    return (
        f"Soft tokens ({', '.join(_SOFT_TOKENS)}) are not expected to learn as much as lora on a base of "
        f"fewer than {_SMALL_BASE / 1e6:g} million parameters: lorry plan says so of each task."
    )


def _was_measured(kind: str) -> bool:
    return kind in TASK_TYPES and issubclass(TASK_TYPES[kind], SequenceHeadTaskType)
