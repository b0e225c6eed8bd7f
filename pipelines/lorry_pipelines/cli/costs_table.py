"""The resources, duration and cost of a run, as a table and for machines."""

from collections.abc import Sequence
from typing import Any

import click

from lorry_pipelines.cluster.costs import Request, TaskCost
from lorry_pipelines.cluster.profile import PriceTable
from lorry_registry.cli.prose import print_line
from lorry_registry.cli.tables import NOTHING, Column, print_heading, print_table

_COLUMNS = (
    Column("Task"),
    Column("Trains on", wraps=True),
    Column("At most", justify="right"),
    Column("Expected", justify="right", is_optional=True),
    Column("Costs at most", justify="right", is_optional=True),
    Column("Expected cost", justify="right", is_optional=True),
)


def describe_costs(costs: Sequence[TaskCost], prices: PriceTable | None) -> dict[str, Any]:
    """Return costs as plain values; what is not known is None."""
    return {
        "currency": prices.currency if prices is not None else None,
        "highest": _add([cost.highest for cost in costs]),
        "expected": _add([cost.expected for cost in costs]),
        "tasks": {
            cost.task: {
                "longest_seconds": cost.longest_seconds,
                "expected_seconds": cost.expected_seconds,
                "known_from": cost.known_from or None,
                "highest": cost.highest,
                "expected": cost.expected,
                "steps": [_describe_request(request) for request in cost.requests],
            }
            for cost in costs
        },
    }


def print_costs(costs: Sequence[TaskCost], prices: PriceTable | None) -> None:
    """Print what tasks ask for, how long, and at what price."""
    print_heading("What it asks for")
    print_table(_COLUMNS, [_format_row(cost, prices) for cost in costs])
    notes = {cost.task: cost.known_from for cost in costs if cost.known_from}
    for task, version in notes.items():
        print_line(f"{task}: expected as {version} took, on the same kind of machine")
    if any(cost.expected_seconds is None for cost in costs):
        click.echo("how long it takes is known of what was trained on the same kind of machine before")
    if prices is None:
        click.echo("what it costs is not known: the profile has no prices")
    elif len(costs) > 1:
        print_line(f"all together at most {_format_price(_add([cost.highest for cost in costs]), prices)}")


def _describe_request(request: Request) -> dict[str, Any]:
    return {
        "step": request.step,
        "nodes": request.nodes,
        "cpu": request.cpu,
        "memory_gib": request.memory_gib,
        "accelerator": request.accelerator or None,
        "accelerators": request.accelerators,
        "longest_seconds": request.longest_seconds,
        "expected_seconds": request.expected_seconds,
        "hourly": request.hourly,
    }


def _format_row(cost: TaskCost, prices: PriceTable | None) -> list[str]:
    (training,) = (request for request in cost.requests if request.step == "finetune")
    expected = cost.expected_seconds
    return [
        cost.task,
        _format_request(training),
        format_hours(cost.longest_seconds),
        format_hours(expected) if expected is not None else NOTHING,
        _format_price(cost.highest, prices),
        _format_price(cost.expected, prices),
    ]


def _format_request(request: Request) -> str:
    parts = [f"{request.cpu:g} CPU", f"{request.memory_gib:g} GiB"]
    if request.accelerators:
        parts.insert(0, f"{request.accelerators} x {request.accelerator}")
    text = ", ".join(parts)
    return f"{request.nodes} nodes with {text} in all" if request.nodes > 1 else text


def format_hours(seconds: float) -> str:
    """Return a time in hours, or in minutes where it is short."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _format_price(price: float | None, prices: PriceTable | None) -> str:
    return f"{price:,.2f} {prices.currency}" if price is not None and prices is not None else NOTHING


def _add(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
