"""Checks of a task on its base, beyond its file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lorry_components.methods import Method
from lorry_components.models.bases import find_base_folder
from lorry_components.models.stored_base import NotStoredError, read_stored_config
from lorry_components.task_types import TaskType
from lorry_components.tasks.definition import find_method, find_task_type
from lorry_components.tasks.passed_checks import PassedChecks
from lorry_registry.errors import BaseModelError, Fault, InvalidTaskError, raise_together
from lorry_registry.tasks.task_spec import TaskSpec


def check_bases(specs: Sequence[TaskSpec], passed: PassedChecks) -> None:
    """Check that all tasks work on their bases, as far as the bases are on this machine.

    Args:
        specs: The tasks.
        passed: What is known to work, which is not checked again.

    Raises:
        InvalidTaskError: Some do not; all faults are listed.
    """
    errors: list[InvalidTaskError] = []
    for spec in specs:
        if not spec.base.is_here:
            continue
        try:
            folder = find_base_folder(spec.base)
        except BaseModelError:
            # The base may be on the machine that trains, which reports it if it is not.
            continue
        try:
            known = passed.find(spec, folder)
            if not known.exists() and not works_as_stored(spec, folder):
                check_base(spec, folder)
                passed.add(known)
        except BaseModelError as error:
            fault = Fault("base.model", error.what)
            errors.append(InvalidTaskError(_name_pair(spec), [fault], todo=error.todo))
        except InvalidTaskError as error:
            errors.append(error)
    raise_together(errors, "tasks")


def works_as_stored(spec: TaskSpec, folder: Path) -> bool:
    """Return whether the files of a base are enough to say that a task works on it.

    Faults are left to :func:`check_base`, which knows all of them and of bases in no usual form.
    """
    # It stands in for transformers' configuration.
    config: Any = read_stored_config(folder)
    if config is None:
        return False
    method, task_type = find_method(spec), find_task_type(spec)
    try:
        faults: list[Fault] | None = task_type.match_family(
            text=lambda texts: list(texts.check_configured(config, folder, spec.train, method)),
            diffusion=lambda _: None,
        )
    except (AttributeError, NotStoredError):
        return False
    return faults == [] and not any(check_training(spec, task_type, method))


def check_base(spec: TaskSpec, folder: Path) -> None:
    """Check that a task works on a base, from the base's configuration alone, for which its model is built.

    Raises:
        BaseModelError: transformers does not know the base's architecture, or cannot build it.
        InvalidTaskError: The task does not work on it; all reasons are listed.
    """
    method = find_method(spec)
    task_type = find_task_type(spec)
    faults = [
        *task_type.check_on_base(folder, spec.train, method),
        *check_training(spec, task_type, method),
    ]
    if faults:
        raise InvalidTaskError(_name_pair(spec), faults, todo="correct these fields and try again")


def _name_pair(spec: TaskSpec) -> str:
    return f"{spec.name} on {spec.base.model}"


def check_training(spec: TaskSpec, task_type: TaskType, method: Method) -> Iterator[Fault]:
    """Return the fields of a task's train section that do not suit its task type, method or each other."""
    train = spec.train
    if train.gradient_checkpointing and not method.survives_checkpointing:
        yield Fault("train.gradient_checkpointing", f"{method.name} does not work with it", "leave it out")
    if train.offload and not method.freezes_base:
        yield Fault(
            "train.offload",
            f"does not work with {method.name}, which trains the base's own weights",
            "leave it out",
        )
    if train.offload and method.holds_four_bits:
        yield Fault("train.offload", "weights in four bits cannot be divided", "leave it out")
    if train.offload and train.cache_frozen_layers:
        yield Fault("train.offload", "does not work with cache_frozen_layers", "leave one of the two out")
    if train.start == "champion" and spec.resources.nodes > 1:
        yield Fault("train.start", "the nodes of a training do not fetch the champion", "write start: base")
    yield from task_type.check_training(train, method)
    if train.packing and train.cache_frozen_layers:
        yield Fault("train.packing", "packed rows differ each time, and cache_frozen_layers keeps none")
