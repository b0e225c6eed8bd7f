"""A task file, checked as a whole: its fields, and what its kind and method make of them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lorry_components.kinds import KINDS, Kind
from lorry_components.methods import METHODS, Method
from lorry_registry.errors import Fault
from lorry_registry.task_document import suggest_name
from lorry_registry.task_loading import describe_fault, load_task
from lorry_registry.task_spec import TaskSpec

_METHOD_FIELDS = frozenset({"name", "max_adapter_mib"})


def load_task_file(path: Path, overrides: Sequence[str] = ()) -> TaskSpec:
    """Read a task file and check all of it.

    Raises:
        InvalidTaskError: The file has faults; all are listed.
    """
    return load_task(path, overrides=overrides, checks=(check_kind, check_method))


def find_kind(spec: TaskSpec) -> Kind:
    """Return the kind of a checked task."""
    return KINDS[spec.kind]()


def find_method(spec: TaskSpec) -> Method:
    """Return the method of a checked task, with its options."""
    return METHODS[spec.method.name](spec.method.options)


def check_kind(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Check that the kind exists and has the metrics that the task names."""
    name = document.get("kind")
    if not isinstance(name, str):
        return
    if name not in KINDS:
        yield Fault("kind", f"there is no kind {name!r}; {suggest_name(name, KINDS)}")
        return
    evaluate = document.get("evaluate")
    if not isinstance(evaluate, Mapping):
        return
    known = KINDS[name].metrics
    listed = evaluate.get("metrics") or ()
    if isinstance(listed, Sequence) and not isinstance(listed, str):
        for metric in listed:
            if isinstance(metric, str) and metric not in known:
                yield Fault(
                    "evaluate.metrics", f"{name} has no metric {metric!r}; {suggest_name(metric, known)}"
                )
    primary = evaluate.get("primary")
    if not isinstance(primary, str):
        return
    if primary not in known:
        yield Fault("evaluate.primary", f"{name} has no metric {primary!r}; {suggest_name(primary, known)}")
    if primary in KINDS[name].error_metrics:
        yield Fault("evaluate.primary", f"of {primary!r} less is better; choose {KINDS[name].primary!r}")


def check_method(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Check that the method exists and understands its options."""
    section = document.get("method")
    if not isinstance(section, Mapping) or not isinstance(section.get("name"), str):
        return
    name = section["name"]
    if name not in METHODS:
        yield Fault("method.name", f"there is no method {name!r}; {suggest_name(name, METHODS)}")
        return
    options = section.get("options", {key: section[key] for key in section if key not in _METHOD_FIELDS})
    known = METHODS[name].options_model.model_fields
    try:
        METHODS[name].options_model.model_validate(options)
    except ValidationError as error:
        for detail in error.errors():
            if detail["type"] == "extra_forbidden":
                option = str(detail["loc"][0])
                yield Fault(
                    f"method.{option}", f"{name} has no option {option!r}; {suggest_name(option, known)}"
                )
            else:
                fault = describe_fault(detail)
                yield Fault(f"method.{fault.where}", fault.what)
