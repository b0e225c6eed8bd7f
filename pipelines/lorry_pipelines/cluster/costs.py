"""The resources that a run asks a cluster for, their duration, and their cost by a profile's prices.

Times are of two kinds. The longest is what the profile's time limits allow, which nothing exceeds. The
expected one is what the same steps took when this task was last trained on the same kind of machine; where
there was no such run it is unknown, and nothing is guessed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorry_components.steps.runtime.outcomes import STEPS
from lorry_pipelines.cluster.profile import ClusterProfile, PriceTable
from lorry_pipelines.step_durations import find_step_durations
from lorry_registry.registry import Registry
from lorry_registry.tasks.task_spec import ResourcesSpec, TaskSpec
from lorry_registry.text.sizes import GIB, add_quantities, parse_size

PLACED_DETAIL = "placed"
"""In the outcome of fine-tuning on a cluster: the resources of its task, which say what machine it was."""

_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a step asks for.

    Attributes:
        step: The step.
        cpu: Processors, on all nodes together.
        memory_gib: Memory in GiB, on all nodes together.
        accelerator: The resource name of the accelerator.
        accelerators: How many, on all nodes together.
        nodes: On how many nodes.
        longest_seconds: The time limit, once for each attempt.
        expected_seconds: How long it took before; None: not known.
        hourly: What it costs an hour; None: a price is missing.
    """

    step: str
    cpu: float
    memory_gib: float
    accelerator: str
    accelerators: int
    nodes: int
    longest_seconds: int
    expected_seconds: float | None = None
    hourly: float | None = None


@dataclass(frozen=True, slots=True)
class TaskCost:
    """What a task asks for.

    Attributes:
        task: The task.
        requests: Its steps.
        deadline_seconds: After which a run ends in any case.
        known_from: The version whose training the expected times are of; empty: there is none.
    """

    task: str
    requests: tuple[Request, ...]
    deadline_seconds: int
    known_from: str = ""

    @property
    def longest_seconds(self) -> int:
        """How long its steps may take, one after the other."""
        return min(sum(request.longest_seconds for request in self.requests), self.deadline_seconds)

    @property
    def expected_seconds(self) -> float | None:
        """How long they took before; None: not known."""
        known = [request.expected_seconds for request in self.requests]
        return sum(time for time in known if time is not None) if all(t is not None for t in known) else None

    @property
    def highest(self) -> float | None:
        """What it costs at most; None: a price is missing."""
        # Time that a run's deadline cuts off is that of the dearest steps least of all.
        left, total = float(self.deadline_seconds), 0.0
        for request in sorted(self.requests, key=lambda one: -(one.hourly or 0.0)):
            if request.hourly is None:
                return None
            taken = min(left, float(request.longest_seconds))
            total += request.hourly * taken / _HOUR
            left -= taken
        return total

    @property
    def expected(self) -> float | None:
        """What it cost before, by the present prices; None: not known."""
        total = 0.0
        for request in self.requests:
            if request.hourly is None or request.expected_seconds is None:
                return None
            total += request.hourly * request.expected_seconds / _HOUR
        return total


def estimate_costs(
    specs: Sequence[TaskSpec], profile: ClusterProfile, registry: Registry | None = None
) -> list[TaskCost]:
    """Return what tasks ask for, and what that costs.

    Args:
        specs: The tasks.
        profile: How steps are placed, and the prices.
        registry: Where earlier runs are looked up; None: nowhere.

    Raises:
        StoreError: The store cannot be read.
    """
    costs = []
    for spec in specs:
        version, seconds = _find_times(spec, registry) if registry is not None else ("", {})
        requests = tuple(_describe_step(step, spec.resources, profile, seconds.get(step)) for step in STEPS)
        costs.append(TaskCost(spec.name, requests, profile.deadline_seconds, version))
    return costs


def _describe_step(
    step: str, resources: ResourcesSpec, profile: ClusterProfile, expected: float | None
) -> Request:
    own = profile.find_step(step)
    count, nodes, memory = 0, 1, own.memory
    if step in ("finetune", "evaluate"):
        count = resources.count if step == "finetune" else min(resources.count, 1)
        nodes = resources.nodes if step == "finetune" else 1
        memory = resources.memory
        if count:
            memory = add_quantities(memory, profile.accelerators.shared_memory)
    labels = profile.node_selector | profile.accelerators.node_selector | resources.node_selector
    cpu, gib = nodes * own.cpus, nodes * parse_size(memory) / GIB
    return Request(
        step=step,
        cpu=cpu,
        memory_gib=gib,
        accelerator=resources.accelerator if count else "",
        accelerators=count * nodes,
        nodes=nodes,
        longest_seconds=own.timeout_seconds * (1 + profile.retry.count),
        expected_seconds=expected,
        hourly=find_price(profile.prices, cpu, gib, count * nodes, resources.accelerator, labels),
    )


def find_price(
    prices: PriceTable | None,
    cpu: float,
    memory_gib: float,
    accelerators: int,
    accelerator: str,
    labels: Mapping[str, str],
) -> float | None:
    """Return what an hour of something costs; None: a price is missing.

    The price of an accelerator is that of the node's label by which it is chosen, or else that of its
    resource name: one cluster often has several kinds under one name.
    """
    if prices is None:
        return None
    total = cpu * prices.cpu + memory_gib * prices.memory
    if accelerators:
        keys = [*labels.values(), accelerator]
        found = next((prices.accelerators[key] for key in keys if key in prices.accelerators), None)
        if found is None:
            return None
        total += accelerators * found
    return total


def _find_times(spec: TaskSpec, registry: Registry) -> tuple[str, dict[str, float]]:
    """Return the last version that was trained on the same kind of machine, and how long its steps took."""
    asked = spec.resources.model_dump(mode="json")
    return find_step_durations(spec, registry, lambda details: details.get(PLACED_DETAIL) == asked)
