"""``lorry rollback``: go back to the previous champion."""

import click

from lorry_registry.cli.champion_move import report_move
from lorry_registry.cli.edge import (
    complete_tasks,
    format_examples,
    json_option,
    load_settings,
)
from lorry_registry.registry import Registry


@click.command(
    "rollback",
    epilog=format_examples(
        "lorry rollback reviews", 'lorry rollback reviews --reason "complaints since Monday"'
    ),
)
@click.argument("task", shell_complete=complete_tasks)
@click.option("--reason", default="rolled back by hand", show_default=True, help="Why, for the history.")
@json_option
def roll_back_task(task: str, reason: str, as_json: bool) -> None:
    """Go back to the previous champion.

    Nothing is deleted: the version that was champion stays registered, and can be promoted again.
    """
    settings = load_settings()
    registry = Registry.open(settings)
    report_move(settings, registry, task, registry.rollback(task, reason=reason), as_json=as_json)
