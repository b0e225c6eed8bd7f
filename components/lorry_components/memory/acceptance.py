"""Which changes of a task validation would accept: advice suggests no others."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from pydantic import ValidationError

from lorry_components.memory.architecture import build_configuration
from lorry_components.models.configuration import BaseConfiguration
from lorry_components.tasks.checks import (
    check_method,
    check_task_type,
    check_training,
    find_method,
    find_task_type,
)
from lorry_registry.errors import Fault
from lorry_registry.task_spec import TaskSpec

Accept = Callable[[Mapping[str, Any]], bool]
"""Says whether a task is still a valid one with fields changed, such as ``train.offload``."""


def accept_changes(spec: TaskSpec, base: BaseConfiguration | None) -> Accept:
    """Return a function that says whether a task with some fields changed has no new faults.

    Args:
        spec: The task.
        base: Its base; None for a pipeline of images, whose method is not changed.
    """
    document = spec.model_dump(mode="json", exclude_defaults=True)
    known = set(_list_faults(document))

    def accepts(fields: Mapping[str, Any]) -> bool:
        changed = _change(document, fields)
        if not set(_list_faults(changed)) <= known:
            return False
        method = find_method(TaskSpec.model_validate(changed))
        if method.name == spec.method.name:
            return True
        # Only a method that trains the same parameters may replace it, as qlora does lora.
        if base is None or not isinstance(method, type(find_method(spec))):
            return False
        return not any(method.check_base(build_configuration(base)))

    return accepts


def _list_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the faults of a task that validation finds before it looks at the base."""
    faults = [*check_task_type(document), *check_method(document)]
    yield from faults
    if any(fault.where.startswith("method") for fault in faults):
        return
    try:
        spec = TaskSpec.model_validate(document)
    except ValidationError as error:
        yield Fault("task", str(error))
        return
    yield from check_training(spec, find_task_type(spec), find_method(spec))


def _change(document: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    changed = deepcopy(dict(document))
    for field, value in fields.items():
        section, _, name = field.partition(".")
        changed.setdefault(section, {})[name] = value
    return changed
