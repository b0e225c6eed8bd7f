"""What follows when the champion has moved: MLflow's aliases, and the report.

The ledger moves first and is the truth; MLflow's aliases follow. If they cannot follow, the move stands.
"""

from lorry_registry.cli.edge import print_json
from lorry_registry.cli.mlflow_following import follow_ledger, warn_of_lag
from lorry_registry.cli.prose import print_line
from lorry_registry.files.digests import shorten_digest
from lorry_registry.ledger.events import Event
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings


def report_move(settings: Settings, registry: Registry, task: str, event: Event, *, as_json: bool) -> None:
    """Move MLflow's aliases after the ledger, and print what has moved; warn if MLflow could not follow.

    Args:
        settings: Where MLflow is.
        registry: Where the champion has moved.
        task: The task.
        event: The move.
        as_json: Print it as JSON.
    """
    before = f"v{event.champion_before}" if event.champion_before else "none"
    if not as_json and event.champion_after is None:
        print_line(f"{task} has no champion now; it was {before}.")
    elif not as_json:
        digest = shorten_digest(event.adapter_id)
        print_line(f"The champion of {task} is now v{event.champion_after} ({digest}); it was {before}.")
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
