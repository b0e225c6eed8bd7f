"""The registry's commands, each in the module of its name, imported when it is called.

:data:`COMMANDS` names them for a :class:`~lorry_registry.cli.lazy.LazyGroup`. Nothing here imports rich,
boto3 or mlflow, so ``lorry --help`` stays fast. :mod:`~lorry_registry.cli.edge` reads the environment,
:mod:`~lorry_registry.cli.tables` prints tables, and :mod:`~lorry_registry.cli.champion_change` is shared by
``promote`` and ``rollback``, :mod:`~lorry_registry.cli.mlflow_following` by all that move the ledger.
"""

from enum import StrEnum

from lorry_registry.cli.lazy import LazyCommand, LazyGroup, run_cli

_CLI = "lorry_registry.cli"


class Section(StrEnum):
    """The groups in which ``--help`` lists the commands, by what people do."""

    DAILY = "Every day"
    RETRAINING = "Judge and retrain"
    SHARING = "Share and serve"
    CLUSTER = "Use a cluster"
    UPKEEP = "Registry upkeep"


COMMANDS: tuple[LazyCommand, ...] = (
    LazyCommand(
        "tasks", f"{_CLI}.tasks:show_tasks", "Show which adapter belongs to which task.", Section.DAILY
    ),
    LazyCommand(
        "show",
        f"{_CLI}.show:show_version",
        "Show everything recorded about an adapter, and where it is.",
        Section.DAILY,
    ),
    LazyCommand(
        "history", f"{_CLI}.history:show_history", "Show what happened to a task, and why.", Section.DAILY
    ),
    LazyCommand(
        "promote",
        f"{_CLI}.promote:promote_version",
        "Make a version the champion of its task.",
        Section.RETRAINING,
    ),
    LazyCommand(
        "rollback",
        f"{_CLI}.rollback:roll_back_task",
        "Go back to the previous champion, or to none.",
        Section.RETRAINING,
    ),
    LazyCommand(
        "pull",
        f"{_CLI}.pull:pull_adapter",
        "Copy a task's adapter to a folder and verify it.",
        Section.SHARING,
    ),
    LazyCommand(
        "verify", f"{_CLI}.verify:verify_adapters", "Re-hash the adapters in the store.", Section.UPKEEP
    ),
    LazyCommand(
        "sign",
        f"{_CLI}.sign:sign_tasks",
        "Sign adapters and histories that have no signature of yours yet.",
        Section.UPKEEP,
    ),
    LazyCommand(
        "delete", f"{_CLI}.delete:delete_one", "Delete a task; lorry restore brings it back.", Section.UPKEEP
    ),
    LazyCommand(
        "restore",
        f"{_CLI}.restore:restore_one",
        "Bring a deleted task back, with the champion of before.",
        Section.UPKEEP,
    ),
    LazyCommand("gc", f"{_CLI}.gc:collect_garbage", "Free what no task needs any more.", Section.UPKEEP),
)

__all__ = ["COMMANDS", "LazyCommand", "LazyGroup", "Section", "run_cli"]
