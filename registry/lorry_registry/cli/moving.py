"""Commands that move the champion: ``promote`` and ``rollback``.

The ledger moves first and is the truth; MLflow's aliases follow. When they cannot, the move stands.
"""

import click

from lorry_registry.cli.edge import (
    format_examples,
    json_option,
    load_settings,
    open_index,
    parse_version,
    print_json,
    print_warning,
)
from lorry_registry.digests import shorten_digest
from lorry_registry.errors import LorryError, TrackingError
from lorry_registry.ledger import Event
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings


@click.command(
    "promote",
    epilog=format_examples(
        "lorry promote reviews 3",
        'lorry promote reviews v3 --reason "better on long reviews"',
        "lorry promote reviews 3 --json",
    ),
)
@click.argument("task")
@click.argument("version", callback=parse_version)
@click.option("--reason", default="promoted by hand", show_default=True, help="Why, for the history.")
@json_option
def promote_version(task: str, version: int, reason: str, as_json: bool) -> None:
    """Make a version the champion of its task.

    The adapter is re-hashed first. The gate is not asked: the history says that a person decided.
    """
    settings = load_settings()
    registry = Registry.open(settings)
    _report_move(settings, registry, task, registry.promote(task, version, reason=reason), as_json=as_json)


@click.command(
    "rollback",
    epilog=format_examples(
        "lorry rollback reviews", 'lorry rollback reviews --reason "complaints since Monday"'
    ),
)
@click.argument("task")
@click.option("--reason", default="rolled back by hand", show_default=True, help="Why, for the history.")
@json_option
def roll_back_task(task: str, reason: str, as_json: bool) -> None:
    """Go back to the champion before.

    Nothing is deleted: the version that is left stays registered, and can be promoted again.
    """
    settings = load_settings()
    registry = Registry.open(settings)
    _report_move(settings, registry, task, registry.rollback(task, reason=reason), as_json=as_json)


def _report_move(settings: Settings, registry: Registry, task: str, event: Event, *, as_json: bool) -> None:
    before = f"v{event.champion_before}" if event.champion_before else "none"
    if not as_json:
        digest = shorten_digest(event.adapter_id)
        click.echo(f"The champion of {task} is v{event.champion_after} ({digest}) now; it was {before}.")
    problem = _update_mlflow(settings, registry, task)
    if as_json:
        print_json(
            {
                "task": task,
                "version": event.champion_after,
                "adapter_id": event.adapter_id,
                "version_before": event.champion_before,
                "promoted_at": event.model_dump(mode="json")["at"],
                "mlflow": "not updated" if problem else "updated",
            }
        )
    if problem:
        print_warning(
            f"the ledger has moved, MLflow has not: {problem.where}: {problem.what}\n"
            f"  -> the move stands; when MLflow is back, run: lorry reconcile"
        )


def _update_mlflow(settings: Settings, registry: Registry, task: str) -> LorryError | None:
    from lorry_registry.mlflow_index import sync_aliases

    index = open_index(settings)
    if not index.has_database():
        return TrackingError("there is no such database yet", where=index.address)
    try:
        sync_aliases(index, registry, task)
    except LorryError as error:
        return error
    return None
