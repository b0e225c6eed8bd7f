"""MLflow follows the ledger as well as it can. If it cannot, what the ledger says stands."""

from lorry_registry.cli.edge import open_index, print_warning
from lorry_registry.errors import LorryError, TrackingError
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings


def follow_ledger(settings: Settings, registry: Registry, task: str) -> LorryError | None:
    """Make MLflow's aliases and pages of a task match the ledger; return what went wrong, if anything did."""
    from lorry_registry.mlflow.index import sync_aliases
    from lorry_registry.mlflow.repair import show_statuses

    try:
        index = open_index(settings)
        if not index.has_database():
            return TrackingError("there is no such database yet", where=index.address)
        # A moved MLflow cannot read its versions' files, and would lose its aliases.
        index.check_place()
        sync_aliases(index, registry, task)
        show_statuses(index, registry, task)
    except LorryError as error:
        return error
    return None


def warn_of_lag(problem: LorryError | None) -> None:
    """Print a warning if MLflow could not follow."""
    if problem:
        print_warning(
            f"the ledger has moved, but MLflow has not: {problem.where}: {problem.what}\n"
            f"  -> the move stands; when MLflow is back, run: lorry reconcile"
        )
