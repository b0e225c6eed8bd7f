"""Takes over into the ledger what a person did in MLflow: the alias ``champion``, moved in its pages."""

from lorry_registry.errors import ConflictError
from lorry_registry.ledger.events import Event
from lorry_registry.ledger.promotion import list_versions
from lorry_registry.mlflow.index import CHAMPION, MlflowIndex
from lorry_registry.registry import Registry

_KEEP = "without --adopt, reconcile sets the alias back to the ledger's champion"


def adopt_champion(index: MlflowIndex, registry: Registry, task: str) -> Event | None:
    """Promote in the ledger the version that a user made the champion in MLflow.

    MLflow may also just be behind the ledger, after a crash between the two. So the alias is adopted only if
    the last champion that Lorry itself showed there is still the ledger's.

    Returns:
        The ledger's event, or None if the alias was not moved.

    Raises:
        ConflictError: The alias names no adapter of this task, or the ledger has moved as well.
        TrackingError: MLflow cannot be reached.
        AdapterRejectedError: The stored adapter is damaged.
    """
    index.check_model(task, registry.registry_id)
    state = registry.ledger.require_state(task)
    if state.deleted is not None:
        # Its alias was removed; one that a user sets cannot bring it back.
        return None
    champion = state.champion
    current = champion.adapter_id if champion else None
    number = index.read_alias_versions(task).get(CHAMPION)
    held = None if number is None else index.identify_version_number(task, number)
    if number is None or (held is not None and held == current):
        return None
    shown = index.read_shown_champion(task)
    if held is not None and held == shown:
        # No user moved it: the ledger went on, and MLflow did not follow.
        return None
    if shown != (current or ""):
        raise ConflictError(
            f"the alias {CHAMPION} and the ledger's champion have both moved since Lorry last set the alias",
            where=task,
            todo=f"decide with: lorry promote {task} VERSION; {_KEEP}",
        )
    version = next(
        (
            version
            for version in list_versions(registry.ledger.read_history(task))
            if version.adapter_id == held
        ),
        None,
    )
    if version is None:
        raise ConflictError(
            f"the alias {CHAMPION} names MLflow's version {number}, which holds no adapter of this task",
            where=task,
            todo=_KEEP,
        )
    return registry.promote(
        task, version.number, reason=f"the alias {CHAMPION} was moved to MLflow's version {number} in MLflow"
    )
