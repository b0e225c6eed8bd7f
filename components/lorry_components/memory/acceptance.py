"""The changes of a task that validation would accept: advice suggests no others."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from lorry_components.memory.architecture import build_configuration
from lorry_components.models.configuration import BaseConfiguration
from lorry_components.tasks.base_checks import check_training
from lorry_components.tasks.definition import find_method, find_task_type, inspect_task
from lorry_registry.errors import Fault
from lorry_registry.tasks.task_spec import TaskSpec

Accept = Callable[[Mapping[str, Any]], bool]
"""Returns whether a task is still valid after a change of fields such as ``train.offload``."""


def accept_changes(spec: TaskSpec, base: BaseConfiguration | None) -> Accept:
    """Return a function that says whether a task with some fields changed has no new faults.

    Args:
        spec: The task.
        base: Its base; None for a pipeline of images, whose method is not changed.
    """
    document = spec.model_dump(mode="json", exclude_defaults=True)
    known = set(_inspect(document)[1])

    def accepts(fields: Mapping[str, Any]) -> bool:
        changed, faults = _inspect(_change(document, fields))
        if changed is None or not known.issuperset(faults):
            return False
        method = find_method(changed)
        if method.name == spec.method.name:
            return True
        # Only a method that trains the same parameters may replace it, as qlora does lora.
        if base is None or not isinstance(method, type(find_method(spec))):
            return False
        return not any(method.check_base(build_configuration(base)))

    return accepts


def _inspect(document: Mapping[str, Any]) -> tuple[TaskSpec | None, list[Fault]]:
    """Return the task, and what validation says about it before it looks at the base.

    There is no task if its method cannot be built.
    """
    spec, faults = inspect_task(document)
    if spec is None or any(fault.where.startswith("method") for fault in faults):
        return None, faults
    return spec, [*faults, *check_training(spec, find_task_type(spec), find_method(spec))]


def _change(document: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    changed = deepcopy(dict(document))
    for field, value in fields.items():
        section, _, name = field.partition(".")
        changed.setdefault(section, {})[name] = value
    return changed
