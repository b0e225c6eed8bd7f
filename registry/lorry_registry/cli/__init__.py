"""The registry's commands, each in the module of its name, imported when it is called.

:data:`COMMANDS` names them for a :class:`~lorry_registry.cli.lazy.LazyGroup`. Nothing here imports rich,
boto3 or mlflow, so ``lorry --help`` stays fast. :mod:`~lorry_registry.cli.edge` reads the environment,
:mod:`~lorry_registry.cli.tables` prints tables, and :mod:`~lorry_registry.cli.champion_move` is shared by
``promote`` and ``rollback``, :mod:`~lorry_registry.cli.mlflow_following` by all that move the ledger,
:mod:`~lorry_registry.cli.resolution_fields` by ``show`` and ``resolve``.
"""

from lorry_registry.cli.lazy import LazyCommand, LazyGroup, run_cli

_CLI = "lorry_registry.cli"
_SECTION = "Registry"

COMMANDS: tuple[LazyCommand, ...] = (
    LazyCommand("tasks", f"{_CLI}.tasks:show_tasks", "Show which adapter belongs to which task.", _SECTION),
    LazyCommand("show", f"{_CLI}.show:show_version", "Show everything recorded about an adapter.", _SECTION),
    LazyCommand(
        "history", f"{_CLI}.history:show_history", "Show what happened to a task, and why.", _SECTION
    ),
    LazyCommand("resolve", f"{_CLI}.resolve:resolve_task", "Print where a task's adapter is.", _SECTION),
    LazyCommand(
        "pull", f"{_CLI}.pull:pull_adapter", "Copy a task's adapter to a folder and verify it.", _SECTION
    ),
    LazyCommand("verify", f"{_CLI}.verify:verify_adapters", "Re-hash the adapters in the store.", _SECTION),
    LazyCommand(
        "promote", f"{_CLI}.promote:promote_version", "Make a version the champion of its task.", _SECTION
    ),
    LazyCommand(
        "rollback",
        f"{_CLI}.rollback:roll_back_task",
        "Go back to the previous champion, or to none.",
        _SECTION,
    ),
    LazyCommand(
        "sign",
        f"{_CLI}.sign:sign_tasks",
        "Sign adapters and histories that have no signature of yours yet.",
        _SECTION,
    ),
    LazyCommand(
        "keygen",
        f"{_CLI}.keygen:generate_keys",
        "Write a key pair to sign adapters and ledgers with.",
        _SECTION,
    ),
    LazyCommand(
        "delete", f"{_CLI}.delete:delete_one", "Delete a task; lorry restore brings it back.", _SECTION
    ),
    LazyCommand(
        "restore",
        f"{_CLI}.restore:restore_one",
        "Bring a deleted task back, with the champion of before.",
        _SECTION,
    ),
    LazyCommand("gc", f"{_CLI}.gc:collect_garbage", "Free what no task needs any more.", _SECTION),
)

__all__ = ["COMMANDS", "LazyCommand", "LazyGroup", "run_cli"]
