"""The end of every change of champion: MLflow's aliases follow, and the change is printed.

The ledger changes first and is the truth. If MLflow's aliases cannot follow, the change stands.
"""

from lorry_registry.cli.edge import print_json
from lorry_registry.cli.mlflow_following import follow_ledger, warn_of_lag
from lorry_registry.cli.prose import print_line
from lorry_registry.files.digests import shorten_digest
from lorry_registry.ledger.events import Event
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings


def report_change(settings: Settings, registry: Registry, task: str, event: Event, *, as_json: bool) -> None:
    """Set MLflow's aliases as the ledger says, and print the change; warn if MLflow could not follow.

    Args:
        settings: Where MLflow is.
        registry: The registry whose champion changed.
        task: The task.
        event: The change.
        as_json: Print it as JSON.
    """
    before = f"it was v{event.champion_before}" if event.champion_before else "there was none before"
    if not as_json and event.champion_after is None:
        print_line(f"{task} has no champion now; {before}.")
    elif not as_json:
        digest = shorten_digest(event.adapter_id)
        print_line(f"The champion of {task} is now v{event.champion_after} ({digest}); {before}.")
    problem = follow_ledger(settings, registry, task)
    if as_json:
        print_json(
            {
                "task": task,
                "version": event.champion_after,
                "adapter_id": event.adapter_id if event.champion_after else None,
                "version_before": event.champion_before,
                "promoted_at": event.model_dump(mode="json")["at"],
                "mlflow": "not updated" if problem else "updated",
            }
        )
    warn_of_lag(problem)
