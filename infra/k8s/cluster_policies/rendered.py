"""The objects of one rendering, and what policies ask about them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]

# No such host can exist (RFC 2606), so what the user has not set can be neither pulled nor reached.
UNSET = "unset.invalid"


@dataclass(frozen=True)
class Fault:
    """One thing wrong with one object."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class Needs:
    """What objects may refer to although it is not rendered: secrets and config maps, and others' pods."""

    secrets: Mapping[str, Sequence[str]]
    config_maps: Mapping[str, Sequence[str]]
    pod_labels: frozenset[str]


@dataclass(frozen=True)
class Workload:
    """An object that makes pods, and the template it makes them from."""

    where: str
    labels: Mapping[str, str]
    pod: Object
    owner: Object

    def list_containers(self) -> list[tuple[str, Object]]:
        """List all containers, init containers too, with the names that they have in messages."""
        found = [*self.pod.get("initContainers", []), *self.pod.get("containers", [])]
        return [(f"{self.where}, container {container.get('name')}", container) for container in found]

    def list_ports(self) -> set[str | int]:
        """List the ports that its containers declare, by number and by name."""
        declared = [port for _, container in self.list_containers() for port in container.get("ports", [])]
        return {port["containerPort"] for port in declared} | {
            port["name"] for port in declared if "name" in port
        }


class Rendered:
    """The objects of one rendering, and what the policies ask about them."""

    def __init__(self, objects: Sequence[Object], needs: Needs) -> None:
        self.objects = list(objects)
        self.needs = needs
        self.workloads = [workload for item in self.objects if (workload := find_workload(item)) is not None]

    def find(self, *kinds: str) -> list[Object]:
        """All objects of these kinds."""
        return [item for item in self.objects if item.get("kind") in kinds]

    def names(self, kind: str) -> set[str]:
        """List the names of all objects of one kind."""
        return {item["metadata"]["name"] for item in self.find(kind)}

    def selects_something(self, selector: Object | None) -> bool:
        """Whether a selector matches a rendered pod, or may match a pod that others make."""
        chosen = selector or {}
        keys = {*chosen.get("matchLabels", {}), *(item["key"] for item in chosen.get("matchExpressions", []))}
        return bool(keys & self.needs.pod_labels) or any(
            matches(chosen, item.labels) for item in self.workloads
        )


Policy = Callable[[Rendered], Iterator[Fault]]


def name_object(item: Object) -> str:
    """How messages name an object."""
    return f"{item.get('kind')}/{item.get('metadata', {}).get('name')}"


def find_workload(item: Object) -> Workload | None:
    """Find the pods that an object makes, if it makes any."""
    spec = item.get("spec", {})
    match item.get("kind"):
        case "Pod":
            template: Object = item
        case "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job":
            template = spec.get("template", {})
        case "CronJob":
            template = spec.get("jobTemplate", {}).get("spec", {}).get("template", {})
        case _:
            return None
    labels = template.get("metadata", {}).get("labels") or {}
    return Workload(name_object(item), labels, template.get("spec", {}), item)


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches labels; the empty selector matches everything."""

    def fits(expression: Object) -> bool:
        key, values = expression["key"], expression.get("values", [])
        match expression["operator"]:
            case "In":
                return labels.get(key) in values
            case "NotIn":
                return labels.get(key) not in values
            case "Exists":
                return key in labels
            case _:
                return key not in labels

    exact = all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
    return exact and all(fits(expression) for expression in selector.get("matchExpressions") or [])


def walk_strings(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every string in a document, with the path to it."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from walk_strings(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence):
        for number, inner in enumerate(value):
            yield from walk_strings(inner, f"{path}[{number}]")
