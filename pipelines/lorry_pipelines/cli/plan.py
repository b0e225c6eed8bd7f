"""``lorry plan``: parameters, memory and the smallest GPU of a task, before anything is spent."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lorry_pipelines.cli.task_options import overrides_option
from lorry_registry.cli.edge import fail_after, format_examples, json_option, load_settings, print_json
from lorry_registry.cli.tables import NOTHING, Column, print_bullets, print_fields, print_heading, print_table
from lorry_registry.errors import Fault, LorryError
from lorry_registry.registry import Registry
from lorry_registry.text.sizes import format_range, format_size

if TYPE_CHECKING:
    from lorry_components.memory.estimates import Estimate
    from lorry_components.memory.plan import TaskPlan
    from lorry_pipelines.cluster.costs import TaskCost
    from lorry_pipelines.cluster.profile import PriceTable
    from lorry_pipelines.retraining.planning import Expectation
    from lorry_registry.settings import Settings
    from lorry_registry.tasks.task_spec import TaskSpec


@click.command(
    epilog=format_examples(
        "lorry plan reviews.yaml",
        "lorry plan reviews.yaml --set method.name=full --set train.batch_size=64",
        "lorry plan reviews.yaml --profile cluster.yaml   what it costs on a cluster as well",
    )
)
@click.argument("files", nargs=-1, required=True, metavar="TASK.yaml...", type=click.Path(path_type=Path))
@overrides_option
@click.option(
    "--profile",
    "profile_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also say what a run on this cluster asks for, for how long, and what it costs.",
)
@json_option
def plan_files(
    files: tuple[Path, ...],
    overrides: tuple[str, ...],
    profile_file: Path | None,
    as_json: bool,
) -> None:
    """Show what tasks would take, before a run.

    Total and trained parameters, the adapter's size, memory by part for training and for predicting, the
    smallest GPU that is large enough, changes that would take less, and how long the task took before on the
    same kind of machine. It needs no weights and no GPU; of a
    base on a hub only config.json is downloaded.
    """
    from lorry_components.process_setup import quiet_libraries

    quiet_libraries()
    from lorry_components.memory import check_fits, describe_plan, plan_task
    from lorry_components.memory.class_counts import find_classes
    from lorry_pipelines.retraining.planning import expect_local
    from lorry_pipelines.scheduling import load_tasks

    planned: list[tuple[TaskSpec, TaskPlan, list[Fault]]] = []
    problems: dict[str, LorryError] = {}
    settings = load_settings()
    for spec in load_tasks(files, overrides, bases=settings.base_place):
        try:
            plan = plan_task(spec, labels=find_classes(spec))
        except LorryError as error:
            if len(files) == 1:
                raise
            problems[f"{spec.name} cannot be planned"] = error
        else:
            planned.append((spec, plan, list(check_fits(spec, plan))))
    specs = [spec for spec, _, _ in planned]
    times = {time.task: time for time in expect_local(specs, Registry.open(settings), plans_memory=False)}
    costs = _Costs(specs, settings, profile_file or settings.kubeflow.profile)
    if as_json:
        print_json(
            [
                describe_plan(plan)
                | {"faults": [{"where": fault.where, "what": fault.advice} for fault in misfits]}
                | {
                    "expected_seconds": times[spec.name].seconds,
                    "known_from": times[spec.name].known_from or None,
                }
                | costs.describe(spec.name)
                for spec, plan, misfits in planned
            ]
        )
    else:
        for spec, plan, misfits in planned:
            _print_plan(
                plan,
                misfits,
                asked=_describe_resources(spec.resources),
                took=_describe_time(times[spec.name]),
            )
        costs.show()
    fail_after(problems)


class _Costs:
    """What tasks cost on a cluster; nothing where no profile of one is given."""

    def __init__(self, specs: "Sequence[TaskSpec]", settings: "Settings", profile_file: Path | None) -> None:
        self._costs: list[TaskCost] = []
        self._prices: PriceTable | None = None
        if profile_file is None:
            return
        from lorry_pipelines.cluster.costs import estimate_costs
        from lorry_pipelines.cluster.profile import load_profile

        profile = load_profile(profile_file)
        self._prices = profile.prices
        self._costs = estimate_costs(specs, profile, Registry.open(settings))

    def describe(self, task: str) -> dict[str, object]:
        from lorry_pipelines.cli.costs_table import describe_costs

        own = [cost for cost in self._costs if cost.task == task]
        return {"costs": describe_costs(own, self._prices)} if own else {}

    def show(self) -> None:
        from lorry_pipelines.cli.costs_table import print_costs

        if self._costs:
            print_costs(self._costs, self._prices)


def _describe_resources(resources: object) -> str:
    from lorry_registry.tasks.task_spec import ResourcesSpec

    assert isinstance(resources, ResourcesSpec)
    asked = f"processors with {resources.memory}"
    if resources.count:
        asked = f"{resources.count} x {resources.accelerator}, and {resources.memory} of host memory"
    return asked if resources.nodes == 1 else f"{resources.nodes} nodes, each with {asked}"


def _describe_time(expectation: "Expectation") -> dict[str, str]:
    """Return the row about how long a task takes; none where that is not known."""
    from lorry_pipelines.cli.costs_table import format_hours

    if expectation.seconds is None:
        return {}
    took = format_hours(expectation.seconds)
    return {"time": f"{took}, as {expectation.known_from} took on the same kind of machine"}


def _print_plan(plan: "TaskPlan", faults: Sequence[Fault], *, asked: str, took: Mapping[str, str]) -> None:
    parameters = plan.parameters
    lacks = any(fault.where.startswith("resources.") for fault in faults)
    print_heading(f"{plan.task}: {plan.method}")
    print_fields(
        {
            "base": plan.base,
            "parameters": f"{parameters.total:,} in all",
            "trained": f"{parameters.adapter:,} by the method and {parameters.head:,} in the head, "
            f"{parameters.trained / parameters.total:.2%} of all",
            "adapter": f"{format_size(plan.adapter_bytes, compact=True)} ({plan.adapter_bytes:,} bytes)",
            "batch": _describe_batch(plan),
            "resources": f"{asked}: {'too little, see below' if lacks else 'enough'}",
            "smallest GPU": _describe_devices(plan),
            **took,
        }
    )
    click.echo()
    _print_parts(plan)
    if faults:
        print_heading("Does not fit")
        print_bullets(map(str, faults))
    if (lacks or plan.smallest_device is None) and plan.advice:
        print_heading("What would take less")
        _print_advice(plan)
    if plan.notes:
        print_heading("Notes")
        print_bullets(plan.notes)


def _describe_batch(plan: "TaskPlan") -> str:
    rows = (
        f"{plan.rows} images of {plan.side}x{plan.side} pixels"
        if plan.side
        else f"{plan.rows} texts of up to {plan.tokens} tokens"
    )
    return rows if plan.processes == 1 else f"{rows} in each of {plan.processes} processes"


def _describe_devices(plan: "TaskPlan") -> str:
    from lorry_components.memory.gpus import DEVICES
    from lorry_components.memory.plan_document import judge_device

    perhaps = [device.name for device in DEVICES if judge_device(device, plan.on_gpu) == "may fit"]
    smallest = plan.smallest_device.name if plan.smallest_device else "none of the known ones is large enough"
    return f"{smallest} (may fit: {', '.join(perhaps)})" if perhaps else smallest


def _print_parts(plan: "TaskPlan") -> None:
    from lorry_components.memory.estimates import RUNTIME_PART

    place = "CPU" if plan.device != "cuda" else "GPU" if plan.processes == 1 else "each GPU"
    columns = [(f"Training, {place}", plan.precision, plan.training)]
    if plan.host is not None:
        columns.append(("Host", "fp32", plan.host))
    else:
        columns.append(("Training, GPU", plan.gpu_precision, plan.on_gpu))
    columns.append(("Predicting, " + ("GPU" if plan.device == "cuda" else "CPU"), "fp32", plan.inference))
    names = dict.fromkeys(part.name for _, _, estimate in columns for part in estimate.parts)
    ordered = [*(name for name in names if name != RUNTIME_PART), RUNTIME_PART]
    print_table(
        [Column("Memory in GiB"), *(Column(title, justify="right") for title, _, _ in columns)],
        [
            ["precision", *(precision for _, precision, _ in columns)],
            *([name, *(_format_part(estimate, name) for _, _, estimate in columns)] for name in ordered),
            ["total", *(format_range(estimate.low, estimate.high) for _, _, estimate in columns)],
        ],
    )


def _format_part(estimate: "Estimate", name: str) -> str:
    part = next((part for part in estimate.parts if part.name == name), None)
    return format_range(part.low, part.high) if part else NOTHING


def _print_advice(plan: "TaskPlan") -> None:
    print_table(
        [
            Column("Change", wraps=True),
            Column("Saves", justify="right"),
            Column("Leaves", justify="right"),
            Column("Smallest GPU", rank=1),
        ],
        [
            [
                advice.change,
                format_size(advice.saved, compact=True),
                format_size(advice.needed, compact=True),
                advice.device.name if advice.device else "none",
            ]
            for advice in plan.advice
        ],
    )
