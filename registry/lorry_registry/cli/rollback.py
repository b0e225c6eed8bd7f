"""``lorry rollback``: go back to the previous champion."""

import click

from lorry_registry.cli.champion_change import report_change
from lorry_registry.cli.edge import (
    format_examples,
    json_option,
    load_settings,
    task_argument,
)
from lorry_registry.registry import Registry


@click.command(
    "rollback",
    epilog=format_examples(
        "lorry rollback reviews",
        'lorry rollback reviews --reason "complaints since Monday"',
        "lorry rollback reviews --to none    the task has no champion then",
    ),
)
@task_argument
@click.option(
    "--to",
    "target",
    type=click.Choice(["none"]),
    help="Leave the task without a champion.  [default: the previous champion]",
)
@click.option("--reason", default="rolled back by hand", show_default=True, help="Why, for the history.")
@json_option
def roll_back_task(task: str, target: str | None, reason: str, as_json: bool) -> None:
    """Go back to the previous champion, or to none.

    Nothing is deleted: the version that was champion stays registered, and can be promoted again.
    """
    settings = load_settings()
    registry = Registry.open(settings)
    roll_back = registry.rollback if target is None else registry.withdraw
    report_change(settings, registry, task, roll_back(task, reason=reason), as_json=as_json)
