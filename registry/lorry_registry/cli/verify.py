"""``lorry verify``: whether the adapters in the store are what they were."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import click

from lorry_registry.cli.edge import (
    complete_tasks,
    format_examples,
    json_option,
    open_registry,
    print_json_entries,
)
from lorry_registry.cli.prose import print_line, print_prose
from lorry_registry.errors import LorryError, NotFoundError, UsageError
from lorry_registry.files.digests import shorten_digest
from lorry_registry.registry import Registry


@dataclass(frozen=True, slots=True)
class _Check:
    task: str
    version: int | None
    adapter_id: str | None
    error: LorryError | None
    is_collected: bool = False

    @property
    def result(self) -> str:
        """What is said of it in a word."""
        return "collected" if self.is_collected else "damaged" if self.error else "sound"


@click.command(
    "verify",
    epilog=format_examples("lorry verify reviews", "lorry verify --all", "lorry verify --all --json"),
)
@click.argument("task", required=False, shell_complete=complete_tasks)
@click.option("--all", "every", is_flag=True, help="Verify every task in the store.")
@json_option
def verify_adapters(task: str | None, every: bool, as_json: bool) -> None:
    """Re-hash the adapters in the store.

    Every version of a task, or of all tasks: its files against its manifest, and the task's history against
    itself. The exit code is not 0 if anything is damaged.
    """
    if (task is None) != every:
        raise UsageError("name one task, or give --all", todo="lorry verify reviews, or lorry verify --all")
    registry = open_registry()
    if task is not None:
        registry.ledger.require_state(task)
    tasks = registry.ledger.list_tasks() if task is None else [task]
    checks = (check for name in tasks for check in _check_task(registry, name))
    # Each is printed when it is done: all of a large registry takes hours.
    failed = _print_json(checks) if as_json else _print_checks(checks, tasks)
    if failed:
        click.get_current_context().exit(failed[0].exit_code)


def _check_task(registry: Registry, task: str) -> Iterable[_Check]:
    try:
        for version, error in registry.verify_task(task):
            is_collected = isinstance(error, NotFoundError) and registry.is_collected(task, version)
            yield _Check(task, version.number, version.adapter_id, error, is_collected)
    except LorryError as error:
        yield _Check(task, None, None, error)


def _describe_check(check: _Check) -> dict[str, object]:
    document: dict[str, object] = {
        "task": check.task,
        "version": check.version,
        "adapter_id": check.adapter_id,
        "ok": check.result != "damaged",
        "problem": str(check.error) if check.error else None,
    }
    return document | ({"collected": True} if check.is_collected else {})


def _print_json(checks: Iterable[_Check]) -> list[LorryError]:
    failed: list[LorryError] = []

    def describe() -> Iterator[dict[str, object]]:
        for check in checks:
            failed.extend([check.error] if check.error and check.result == "damaged" else [])
            yield _describe_check(check)

    print_json_entries(describe())
    return failed


def _print_checks(checks: Iterable[_Check], tasks: Sequence[str]) -> list[LorryError]:
    if not tasks:
        click.echo("There is nothing to verify: no task has an adapter yet.")
        return []
    from lorry_registry.cli.tables import NOTHING, Column, print_rows

    damaged: list[tuple[str, LorryError]] = []
    count = collected = 0

    def describe() -> Iterator[tuple[str, ...]]:
        nonlocal count, collected
        for check in checks:
            count += 1
            collected += check.result == "collected"
            if check.error and check.result == "damaged":
                name = f"{check.task} v{check.version}" if check.version else f"{check.task}, its history"
                damaged.append((name, check.error))
            yield (
                check.task,
                f"v{check.version}" if check.version else NOTHING,
                shorten_digest(check.adapter_id) if check.adapter_id else NOTHING,
                check.result,
            )

    columns = (Column("Task"), Column("Version", "right"), Column("Adapter"), Column("Result"))
    widths = (
        max(len(task) for task in tasks),
        0,
        len(shorten_digest("sha256:" + "0" * 64)),
        len("collected"),
    )
    print_rows(columns, widths, describe())
    for name, error in damaged:
        print_prose(f"error: {name}: {error}", err=True)
    if not damaged:
        note = f"; the files of {collected} were collected by lorry gc" if collected else ""
        print_line(f"{count - collected} checked, all sound{note}")
    return [error for _, error in damaged]
