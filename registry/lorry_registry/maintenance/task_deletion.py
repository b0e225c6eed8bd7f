"""Deleting a task, which is an event first: until gc takes its files, it can be restored as it was."""

from datetime import UTC, datetime

from lorry_registry.adapters.stored_adapters import adapter_hex
from lorry_registry.errors import ConflictError
from lorry_registry.ledger.events import Champion, Deletion, Event
from lorry_registry.ledger.ledger import NextState, TaskState, require_present
from lorry_registry.ledger.promotion import list_versions
from lorry_registry.registry import Registry
from lorry_registry.text.users import name_user


def delete_task(registry: Registry, task: str, *, reason: str, by: str | None = None) -> Event:
    """Delete a task: its name stands for no adapter any more. Its history and its files stay for now.

    Args:
        registry: The registry.
        task: The task.
        reason: Why, for the history.
        by: Who acts; the user's name by default.

    Raises:
        NotFoundError: No such task, or it is deleted already.
        ConflictError: Another process changed the task at the same time.
    """
    state = registry.ledger.require_state(task)
    require_present(state)
    actor = by or name_user()
    deletion = Deletion(at=datetime.now(UTC), by=actor, reasons=(reason,), champion=state.champion)
    return _append(registry, state, "delete", state.champion, NextState(None, deletion), reason, actor)


def restore_task(registry: Registry, task: str, *, reason: str, by: str | None = None) -> Event:
    """Bring a deleted task back, with the champion of before.

    If the champion's files were collected meanwhile, the task comes back without a champion: new versions can
    be registered again.

    Args:
        registry: The registry.
        task: The task.
        reason: Why, for the history.
        by: Who acts; the user's name by default.

    Raises:
        NotFoundError: No such task.
        ConflictError: It is not deleted, or another process changed it at the same time.
        AdapterRejectedError: The champion's files are damaged.
    """
    state = registry.ledger.require_state(task)
    if state.deleted is None:
        raise ConflictError("the task is not deleted", where=task, todo=f"see: lorry show {task}")
    actor, champion = by or name_user(), state.deleted.champion
    if champion is None:
        return _append(registry, state, "restore", None, NextState(None, None), reason, actor)
    with registry.leases.hold(adapter_hex(champion.adapter_id)):
        present: Champion | None = champion
        if registry.read_version(task, champion.version, champion.adapter_id) is None:
            present = None
        else:
            registry.check_version(task, champion.version, champion.adapter_id)
        return _append(registry, state, "restore", champion, NextState(present, None), reason, actor)


def _append(
    registry: Registry,
    state: TaskState,
    action: str,
    champion: Champion | None,
    next_state: NextState,
    reason: str,
    by: str,
) -> Event:
    newest = list_versions(registry.ledger.read_events(state))[-1]
    return registry.ledger.append(
        state,
        action="delete" if action == "delete" else "restore",
        adapter_id=champion.adapter_id if champion else newest.adapter_id,
        version=champion.version if champion else newest.number,
        promote=False,
        by=by,
        reasons=(reason,),
        next_state=next_state,
    )
