"""``lorry delete``: delete a task, so that it can be restored for some time."""

import sys

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
from lorry_registry.errors import UsageError
from lorry_registry.ledger.ledger import TaskState, require_present
from lorry_registry.maintenance.task_deletion import delete_task
from lorry_registry.registry import Registry


@click.command(
    "delete",
    epilog=format_examples(
        'lorry delete reviews --reason "replaced by ratings"',
        'lorry delete reviews --reason "replaced by ratings" --yes',
        "lorry restore reviews",
    ),
)
@task_argument
@click.option("--reason", required=True, help="Why, for the history.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def delete_one(task: str, reason: str, yes: bool, as_json: bool) -> None:
    """Delete a task; lorry restore brings it back.

    Its name stands for no adapter any more, and nothing can be registered under it. Its history stays, and
    its files stay until 'lorry gc' finds that it was deleted longer ago than the grace period.
    """
    settings = load_settings()
    registry = Registry.open(settings)
    state = registry.ledger.require_state(task)
    require_present(state)
    if not yes:
        _confirm(state)
    event = delete_task(registry, task, reason=reason)
    problem = follow_ledger(settings, registry, task)
    if as_json:
        print_json(
            {
                "task": task,
                "deleted_at": event.model_dump(mode="json")["at"],
                "version_before": event.champion_before,
                "mlflow": "not updated" if problem else "updated",
            }
        )
    else:
        print_line(f"{task} is deleted. To bring it back: lorry restore {task}")
    warn_of_lag(problem)


def _confirm(state: TaskState) -> None:
    if not _is_asked():
        raise UsageError("there is no terminal", where=state.task, todo="give --yes if you are sure")
    versions = state.head.versions if state.head else 0
    count = f"{versions} version{'' if versions == 1 else 's'}"
    champion = f"v{state.champion_version} is its champion" if state.champion else "it has no champion"
    click.confirm(f"{state.task} has {count}, and {champion}. Delete it?", abort=True, err=True)


def _is_asked() -> bool:
    return sys.stdin.isatty()
