"""The ledger's word on an adapter that MLflow gives out under a name of its own.

A signature says who made an adapter, not what it is for: who may write to MLflow, but has no key, can let a
task's alias name another task's signed adapter, or an old one of the same task. Only the ledger knows better.
"""

import logging
from collections.abc import Collection

from lorry_registry.errors import AdapterRejectedError, NotFoundError, StoreError
from lorry_registry.ledger.events import Event
from lorry_registry.ledger.version_status import find_statuses, name_version_status
from lorry_registry.manifest import Manifest
from lorry_registry.mlflow.index import CHAMPION
from lorry_registry.registry import Registry

_LOGGER = logging.getLogger(__name__)


def check_loaded(
    registry: Registry, manifest: Manifest, *, model: str, aliases: Collection[str], where: str
) -> None:
    """Judge by the ledger an adapter that was loaded from MLflow; where there is none, say so in the log.

    Args:
        registry: The ledgers, read under the policy of this process.
        manifest: The adapter's manifest.
        model: The registered model that was asked for; empty: that is not known.
        aliases: MLflow's aliases of the version that was loaded.
        where: What an error names.

    Raises:
        AdapterRejectedError: Signatures are required, and the adapter is none of the task's, or MLflow calls
            it the champion and the ledger does not; or the ledger cannot be read.
    """
    # A model that was copied under another name is no task.
    for task in dict.fromkeys(filter(None, (model, manifest.task))):
        try:
            events = registry.ledger.read_history(task)
        except NotFoundError:
            _LOGGER.warning(
                "%s: the ledger could not be asked whether this is its adapter: %s has no task %r; set "
                "LORRY_STORE to the store that has it",
                where,
                registry.store.address,
                task,
            )
        except StoreError as error:
            fault = AdapterRejectedError(
                f"the ledger cannot be asked: {error.what}", where=where, todo=error.todo
            )
            registry.trust.object_to(fault, subject=f"the ledger of {task}")
        else:
            _check_version(registry, manifest, events, task=task, aliases=aliases, where=where)
            return


def _check_version(
    registry: Registry,
    manifest: Manifest,
    events: list[Event],
    *,
    task: str,
    aliases: Collection[str],
    where: str,
) -> None:
    status = next(
        (each for each in find_statuses(events).values() if each.adapter_id == manifest.adapter_id), None
    )
    todo = f"run: lorry reconcile {task}, which makes MLflow say what the ledger says"
    if status is None:
        other = "" if manifest.task == task else f", but one of {manifest.task!r}"
        what = f"it is no adapter of the task {task!r} in the ledger{other}"
    elif status.role != "champion" and CHAMPION in aliases:
        what = (
            f"MLflow's alias {CHAMPION} names v{status.version} of {task!r}, which the ledger calls "
            f"{name_version_status(status)}"
        )
    else:
        if status.role != "champion":
            _LOGGER.warning(
                "%s: this is v%d of %r, which is not the champion: %s",
                where,
                status.version,
                task,
                name_version_status(status),
            )
        return
    registry.trust.object_to(
        AdapterRejectedError(what, where=where, todo=todo),
        subject=f"adapter {manifest.adapter_id} for {task}",
    )
