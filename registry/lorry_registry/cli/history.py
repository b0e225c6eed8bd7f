"""``lorry history``: what happened to a task, and why."""

import click

from lorry_registry.cli.edge import (
    format_examples,
    json_option,
    open_registry,
    print_json,
    task_argument,
)
from lorry_registry.files.digests import shorten_digest
from lorry_registry.ledger.events import Event
from lorry_registry.ledger.promotion import list_collected


@click.command("history", epilog=format_examples("lorry history reviews", "lorry history reviews --json"))
@task_argument
@json_option
def show_history(task: str, as_json: bool) -> None:
    """Show what happened to a task, and why.

    Every version that was registered, every move of the champion, deletions and restorations, and whose
    files were collected, the oldest first.
    """
    events = open_registry().ledger.read_history(task)
    if as_json:
        print_json([{**event.model_dump(mode="json"), "digest": event.digest} for event in events])
        return
    from lorry_registry.cli.tables import Column, format_time, print_table

    columns = (
        Column("#", "right"),
        Column("When"),
        Column("By", rank=2),
        Column("What"),
        Column("Version", "right"),
        Column("Champion", rank=1),
        Column("Adapter", rank=3),
        Column("Why", wraps=True, goes_below=True),
    )
    rows = [
        (
            str(event.sequence),
            format_time(event.at),
            event.by,
            event.action,
            _format_versions(event),
            _format_move(event),
            shorten_digest(event.adapter_id),
            "; ".join(event.reasons),
        )
        for event in events
    ]
    print_table(columns, rows)


def _format_versions(event: Event) -> str:
    """Return the version that an event concerns, or all that were collected: ``v1 to v3, v5``."""
    numbers = sorted(list_collected(event)) if event.action == "collect" else []
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    spans = [
        f"v{run[0]} to v{run[-1]}" if len(run) > 2 else ", ".join(f"v{number}" for number in run)
        for run in runs
    ]
    return ", ".join(spans) or f"v{event.version}"


def _format_move(event: Event) -> str:
    if event.champion_after is None:
        return f"v{event.champion_before} -> none" if event.champion_before else "none"
    if not event.is_promotion:
        return f"v{event.champion_after}"
    before = f"v{event.champion_before}" if event.champion_before else "none"
    return f"{before} -> v{event.champion_after}"
