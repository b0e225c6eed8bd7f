"""``lorry restore``: bring a deleted task back."""

import click

from lorry_registry.cli.edge import (
    format_examples,
    json_option,
    load_settings,
    print_json,
    task_argument,
)
from lorry_registry.cli.mlflow_following import follow_ledger, warn_of_lag
from lorry_registry.cli.prose import print_line
from lorry_registry.maintenance.task_deletion import restore_task
from lorry_registry.registry import Registry


@click.command("restore", epilog=format_examples("lorry restore reviews", "lorry restore reviews --json"))
@task_argument
@click.option("--reason", default="restored by hand", show_default=True, help="Why, for the history.")
@json_option
def restore_one(task: str, reason: str, as_json: bool) -> None:
    """Bring a deleted task back, with the champion of before.

    The champion's files are re-hashed first. If 'lorry gc' has taken them meanwhile, the task comes back
    without a champion.
    """
    settings = load_settings()
    registry = Registry.open(settings)
    event = restore_task(registry, task, reason=reason)
    problem = follow_ledger(settings, registry, task)
    if as_json:
        print_json(
            {
                "task": task,
                "restored_at": event.model_dump(mode="json")["at"],
                "version": event.champion_after,
                "mlflow": "not updated" if problem else "updated",
            }
        )
    elif event.champion_after:
        print_line(f"{task} is back; its champion is v{event.champion_after}.")
    else:
        print_line(f"{task} is back, without a champion; see why: lorry history {task}")
    warn_of_lag(problem)
