"""From a task file or a document to a task: all of it is checked but what needs the base.

A document is validated once, by the models of its sections and the options model of its method, see
:func:`~lorry_registry.tasks.task_loading.inspect_document`. The rules that concern several sections are
here; those that depend on the task type are its class methods. What needs the base is in
:mod:`~lorry_components.tasks.base_checks`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorry_components.methods import METHODS, Method
from lorry_components.methods.base import ReadOptions
from lorry_components.task_types import TASK_TYPES, InputForm, TaskType
from lorry_registry.errors import Fault, InvalidTaskError
from lorry_registry.tasks.task_document import suggest_name
from lorry_registry.tasks.task_loading import inspect_document, load_task, parse_task
from lorry_registry.tasks.task_sections import TaskSections
from lorry_registry.tasks.task_spec import HeadSpec, MethodSpec, TaskSpec


def load_task_file(path: Path, overrides: Sequence[str] = ()) -> TaskSpec:
    """Read a task file and check all of it but what needs the base.

    Raises:
        InvalidTaskError: The file has faults; all are listed.
        UsageError: A setting is not of the form FIELD=VALUE.
    """
    return load_task(path, overrides=overrides, checks=(check_sections,))


def define_task(
    document: Mapping[str, Any], *, where: str, folder: Path, lines: Mapping[str, int] | None = None
) -> TaskSpec:
    """Turn a document into a checked task.

    Args:
        document: The content of a task file.
        where: The name of the document in error messages.
        folder: The folder that relative paths are taken from.
        lines: The line of each field in the document, by dotted name; None: it has none.

    Raises:
        InvalidTaskError: The document has faults; all are listed.
    """
    return parse_task(document, where=where, folder=folder, checks=(check_sections,), lines=lines)


def inspect_task(document: Mapping[str, Any]) -> tuple[TaskSpec | None, list[Fault]]:
    """Return the task that a document describes, None if a field is invalid, and all faults.

    Paths are left as they are.
    """
    return inspect_document(document, (check_sections,))


def check_sections(sections: TaskSections) -> Iterator[Fault]:
    """Check that the task type and the method exist, and that all fields suit them and each other."""
    task_type = None if sections.kind is None else TASK_TYPES.get(sections.kind)
    if sections.kind is not None and task_type is None:
        yield Fault("kind", f"there is no kind {sections.kind!r}", suggest_name(sections.kind, TASK_TYPES))
    if task_type is not None:
        yield from task_type.check_sections(sections)
    if sections.method is not None:
        yield from _check_method(sections.method, task_type, sections)


def _check_method(
    section: MethodSpec, task_type: type[TaskType] | None, sections: TaskSections
) -> Iterator[Fault]:
    if section.name not in METHODS:
        yield Fault(
            "method.name", f"there is no method {section.name!r}", suggest_name(section.name, METHODS)
        )
        return
    result = read_options(section)
    yield from result.faults
    if task_type is None:
        return
    yield from task_type.check_method(section.name)
    if sections.train is not None and sections.train.start == "champion":
        yield from _check_start(section.name, result, sections)
    if not METHODS[section.name].trains_in_steps:
        yield from _check_fitting(section.name, sections)
    elif sections.head is not None:
        yield from _check_head(sections.head)
    data, options = sections.data, result.options
    if data is not None and options is not None and options.soft_template is not None:
        has_pair = data.columns.text_pair is not None
        yield from task_type.check_soft_template(options.soft_template, data.template, has_pair=has_pair)


def _check_start(method: str, result: ReadOptions, sections: TaskSections) -> Iterator[Fault]:
    """Check that training can begin with the champion's adapter."""
    if not METHODS[method].continues:
        known = ", ".join(name for name, each in METHODS.items() if each.continues)
        yield Fault("train.start", f"{method} cannot go on from an adapter", f"these can: {known}")
    elif result.options is not None:
        yield from METHODS[method](result.options).check_continuing()
    if sections.head is not None and sections.head.init == "probe":
        yield Fault(
            "train.start", "the champion's head would be replaced by the probe", "leave head.init out"
        )


def _check_head(head: HeadSpec) -> Iterator[Fault]:
    """Check that what is fitted is a linear layer over the base."""
    if head.pooling == "transformers" and head.init == "probe":
        yield Fault(
            "head.init",
            "transformers' head may have layers of its own, to which a linear probe cannot be fitted",
            "leave it out, or write head.pooling: auto",
        )


def _check_fitting(method: str, sections: TaskSections) -> Iterator[Fault]:
    """Check that a task whose head is fitted at once asks for nothing that only a training has."""
    given = set() if sections.train is None else sections.train.model_fields_set - {"seed", "precision"}
    if given:
        yield Fault(
            "train",
            f"{method} fits its head at once, and {', '.join(sorted(given))} would do nothing",
            "leave it out, or write --set train={}",
        )
    if sections.head is not None and sections.head.pooling == "transformers":
        yield Fault("head.pooling", f"{method} is a linear layer, and not transformers' head", "leave it out")
    asked = set() if sections.head is None else sections.head.model_fields_set
    if sections.head is not None and "init" in asked and sections.head.init == "random":
        yield Fault("head.init", f"{method} is nothing but a fitted head", "leave it out")
    for name in sorted(asked & {"dropout", "learning_rate"}):
        yield Fault(f"head.{name}", f"{method} trains nothing, and this would do nothing", "leave it out")


def read_options(section: MethodSpec) -> ReadOptions:
    """Return the options of a method that exists; they are validated once for each task."""
    return section.read_options(METHODS[section.name].read_options)


def find_task_type(spec: TaskSpec) -> TaskType:
    """Return the task type of a checked task."""
    task_type = TASK_TYPES[spec.kind](InputForm.of(spec))
    is_open = spec.head is None and METHODS[spec.method.name].trains_in_steps
    return task_type.leave_head_open() if is_open else task_type


def find_method(spec: TaskSpec) -> Method:
    """Return the method of a checked task, with its options.

    Raises:
        InvalidTaskError: The task was not checked, and its options have faults; all are listed.
    """
    result = read_options(spec.method)
    if result.faults:
        raise InvalidTaskError(spec.name, result.faults, todo="correct these fields and try again")
    return METHODS[spec.method.name](result.options, TASK_TYPES[spec.kind].peft_task_type)
