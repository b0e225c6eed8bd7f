"""``lorry promote``: make a version the champion of its task."""

import click

from lorry_registry.cli.champion_change import report_change
from lorry_registry.cli.edge import (
    format_examples,
    json_option,
    load_settings,
    parse_version,
    task_argument,
)
from lorry_registry.registry import Registry


@click.command(
    "promote",
    epilog=format_examples(
        "lorry promote reviews 3",
        'lorry promote reviews v3 --reason "better on long reviews"',
        "lorry promote reviews 3 --json",
    ),
)
@task_argument
@click.argument("version", callback=parse_version)
@click.option("--reason", default="promoted by hand", show_default=True, help="Why, for the history.")
@json_option
def promote_version(task: str, version: int, reason: str, as_json: bool) -> None:
    """Make a version the champion of its task.

    The adapter is re-hashed first. The gate is not consulted: the history records that a person decided.
    """
    settings = load_settings()
    registry = Registry.open(settings)
    report_change(settings, registry, task, registry.promote(task, version, reason=reason), as_json=as_json)
