"""The memory, time and money of a retraining: time as it took before, money where prices are known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorry_components.hardware_id import describe_machine
from lorry_pipelines.step_durations import find_step_durations
from lorry_registry.errors import LorryError
from lorry_registry.registry import Registry
from lorry_registry.tasks.task_spec import TaskSpec

if TYPE_CHECKING:
    from lorry_pipelines.cluster.costs import TaskCost
    from lorry_pipelines.cluster.profile import ClusterProfile


@dataclass(frozen=True, slots=True)
class Expectation:
    """What retraining one task would take.

    Attributes:
        task: The task.
        seconds: How long its steps took before on the same kind of machine; None: not known.
        known_from: The version that took so long; "": there is none.
        memory: The least and the most bytes that training would take of the device that it is on; None: it
            cannot be planned.
        cost: What it cost before by the present prices; None: not known.
        highest_cost: What it costs at most; None: not known.
        currency: Of both; "" where there are no prices.
    """

    task: str
    seconds: float | None
    known_from: str = ""
    memory: tuple[int, int] | None = None
    cost: float | None = None
    highest_cost: float | None = None
    currency: str = ""


def expect_local(specs: Sequence[TaskSpec], registry: Registry, *, plans_memory: bool) -> list[Expectation]:
    """Return what tasks would take on this machine.

    Args:
        specs: The tasks.
        registry: Where earlier runs are.
        plans_memory: Whether memory is planned, which takes a second or more for each task.

    Raises:
        StoreError: The store cannot be read.
    """
    machine = describe_machine()
    expected = []
    for spec in specs:
        version, steps = find_step_durations(
            spec, registry, lambda details: details.get("machine") == machine
        )
        expected.append(
            Expectation(
                task=spec.name,
                seconds=sum(steps.values()) if steps else None,
                known_from=version,
                memory=_plan_memory(spec) if plans_memory else None,
            )
        )
    return expected


def expect_on_cluster(
    specs: Sequence[TaskSpec], profile: "ClusterProfile", registry: Registry, *, plans_memory: bool
) -> list[Expectation]:
    """Return what tasks would take on a cluster, where each asks for a machine of its own.

    Args:
        specs: The tasks.
        profile: How steps are placed, and what they cost.
        registry: Where earlier runs are.
        plans_memory: Whether memory is planned.

    Raises:
        StoreError: The store cannot be read.
    """
    from lorry_pipelines.cluster.costs import estimate_costs

    currency = profile.prices.currency if profile.prices is not None else ""

    def expect(spec: TaskSpec, cost: "TaskCost") -> Expectation:
        return Expectation(
            task=spec.name,
            seconds=cost.expected_seconds,
            known_from=cost.known_from,
            memory=_plan_memory(spec) if plans_memory else None,
            cost=cost.expected,
            highest_cost=cost.highest,
            currency=currency,
        )

    return list(map(expect, specs, estimate_costs(specs, profile, registry)))


def _plan_memory(spec: TaskSpec) -> tuple[int, int] | None:
    from lorry_components.memory import plan_task

    try:
        plan = plan_task(spec)
    except LorryError:
        # What is wrong with it is reported by its own first step, or by lorry plan.
        return None
    return plan.training.low, plan.training.high
