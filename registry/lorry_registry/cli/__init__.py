"""The registry's commands, loaded only when they are called.

:data:`COMMANDS` names them for a :class:`~lorry_registry.cli.lazy.LazyGroup`. Nothing here imports rich,
boto3 or mlflow, so ``lorry --help`` stays fast. The environment is read in :mod:`~lorry_registry.cli.edge`.
"""

from lorry_registry.cli.lazy import LazyCommand, LazyGroup, run_cli

_SECTION = "Registry"
_READING = "lorry_registry.cli.reading"
_COPYING = "lorry_registry.cli.copying"
_MOVING = "lorry_registry.cli.moving"

COMMANDS: tuple[LazyCommand, ...] = (
    LazyCommand("tasks", f"{_READING}:show_tasks", "Show which adapter belongs to which task.", _SECTION),
    LazyCommand("show", f"{_READING}:show_version", "Show all that is known about an adapter.", _SECTION),
    LazyCommand("history", f"{_READING}:show_history", "Show what happened to a task, and why.", _SECTION),
    LazyCommand("resolve", f"{_READING}:resolve_task", "Print where a task's adapter is.", _SECTION),
    LazyCommand("pull", f"{_COPYING}:pull_adapter", "Copy a task's adapter to a folder, verified.", _SECTION),
    LazyCommand("verify", f"{_COPYING}:verify_adapters", "Re-hash adapters in the store.", _SECTION),
    LazyCommand(
        "promote", f"{_MOVING}:promote_version", "Make a version the champion of its task.", _SECTION
    ),
    LazyCommand("rollback", f"{_MOVING}:roll_back_task", "Go back to the champion before.", _SECTION),
)

__all__ = ["COMMANDS", "LazyCommand", "LazyGroup", "run_cli"]
