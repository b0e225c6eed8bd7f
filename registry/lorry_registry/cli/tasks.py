"""``lorry tasks``: which adapter belongs to which task."""

import contextlib
import gc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from lorry_registry.cli.edge import (
    fail_after,
    format_examples,
    json_option,
    open_registry,
    print_json,
    write_output,
)
from lorry_registry.cli.prose import clean_text, print_line, print_prose
from lorry_registry.errors import LorryError, UsageError
from lorry_registry.files.digests import shorten_digest
from lorry_registry.registry import Registry, TaskEntry
from lorry_registry.text.sizes import format_size

_NO_TASKS = """No task has an adapter yet in {store}

Train one and register it:
  lorry run TASK.yaml
Check a task file without training:
  lorry validate TASK.yaml
Look in another store:
  LORRY_STORE=FOLDER lorry tasks
  LORRY_STORE=s3://BUCKET/PREFIX lorry tasks"""


@click.command(
    "tasks",
    epilog=format_examples(
        "lorry tasks",
        "lorry tasks --all",
        "lorry tasks --html tasks.html",
        "lorry tasks --json",
        "lorry tasks --json | jq -r '.[] | [.task, .adapter_id] | @tsv'",
    ),
)
@click.option("--all", "every", is_flag=True, help="Show tasks that were deleted, too.")
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write one page that a browser opens without a network: the table, each metric over the versions, "
    "the gate's reasons.",
)
@json_option
def show_tasks(every: bool, page: Path | None, as_json: bool) -> None:
    """Show which adapter belongs to which task."""
    if page is not None and as_json:
        raise UsageError("--html and --json exclude each other", todo="give one of them")
    registry = open_registry()
    if page is not None:
        _write_page(registry, page)
        return
    found, problems = _read_entries(registry)
    entries = [entry for entry in found if every or entry.deleted is None]
    if as_json:
        print_json([_describe_entry(entry) for entry in entries])
    elif entries:
        _print_entries(entries)
    elif found:
        click.echo("All tasks were deleted; to see them: lorry tasks --all")
    elif not problems:
        click.echo(_NO_TASKS.format(store=registry.store.address))
    for problem in problems[:-1]:
        print_prose(f"error: {problem}", err=True)
    if problems:
        # One damaged task does not hide the others, and does not go unmentioned.
        raise problems[-1]


def _write_page(registry: Registry, path: Path) -> None:
    from lorry_registry.pages import describe_tasks, render_tasks

    tasks, problems = describe_tasks(registry, registry.ledger.list_tasks())
    text = render_tasks(tasks, problems, store=registry.store.address, now=datetime.now(UTC))
    write_output(path, text)
    count = f"{len(tasks)} task{'' if len(tasks) == 1 else 's'}"
    print_line(f"{path} shows {count}; open it in a browser")
    fail_after(problems)


def _read_entries(registry: Registry) -> tuple[list[TaskEntry], list[LorryError]]:
    entries: list[TaskEntry] = []
    problems: list[LorryError] = []
    with _pausing_collection():
        for entry in registry.survey_tasks():
            if isinstance(entry, LorryError):
                problems.append(entry)
            else:
                entries.append(entry)
    return entries, problems


@contextlib.contextmanager
def _pausing_collection() -> Iterator[None]:
    """Let Python look for no cycles of garbage: thousands of documents are read, and all of them are kept."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _describe_entry(entry: TaskEntry) -> dict[str, Any]:
    champion, manifest = entry.champion, entry.manifest
    headline = manifest.evaluation.headline if manifest else None
    document = {
        "task": entry.task,
        "kind": manifest.kind if manifest else None,
        "base": manifest.base.model if manifest else None,
        "method": manifest.method if manifest else None,
        "version": champion.version if champion else None,
        "adapter_id": champion.adapter_id if champion else None,
        "metric": manifest.evaluation.primary if manifest else None,
        "metric_title": manifest.evaluation.name_metric(manifest.evaluation.primary) if manifest else None,
        "value": headline.value if headline else None,
        "interval": [headline.low, headline.high] if headline else None,
        "trained_parameters": manifest.parameters.trained if manifest else None,
        "size_bytes": manifest.size_bytes if manifest else None,
        "promoted_at": champion.model_dump(mode="json")["promoted_at"] if champion else None,
    }
    return document | ({"deleted_at": entry.deleted.model_dump(mode="json")["at"]} if entry.deleted else {})


def _print_entries(entries: list[TaskEntry]) -> None:
    from lorry_registry.cli.tables import Column, format_time, print_table

    columns = (
        Column("Task"),
        Column("Version", "right"),
        Column("Metric", rank=1),
        Column("Value", "right"),
        Column("95 % interval", rank=3),
        Column("Task type", rank=9),
        Column("Base", rank=5),
        Column("Method", rank=2),
        Column("Trained", "right", rank=8),
        Column("Size", "right", rank=7),
        Column("Adapter", rank=6),
        Column("Promoted", rank=4),
    )
    print_table(columns, [_format_entry(entry, len(columns)) for entry in entries])
    for entry in entries:
        if entry.deleted is not None:
            when = f"{format_time(entry.deleted.at)} by {clean_text(entry.deleted.by)}"
            print_prose(f"{entry.task} was deleted on {when}; to bring it back: lorry restore {entry.task}")
        elif entry.champion is None:
            count = f"{entry.versions} version{'' if entry.versions == 1 else 's'}"
            print_prose(f"{entry.task} has {count} and no champion; see why: lorry history {entry.task}")
        elif entry.newest.action == "rollback":
            event = entry.newest
            back = f"from v{event.champion_before} to v{event.champion_after}"
            when = f"{format_time(event.at)} by {clean_text(event.by)}"
            why = clean_text("; ".join(event.reasons)) or "no reason was given"
            print_prose(
                f"{entry.task} was rolled back {back} on {when}: {why}; see more: lorry history {entry.task}"
            )


def _format_entry(entry: TaskEntry, width: int) -> tuple[str, ...]:
    from lorry_registry.cli.tables import NOTHING, format_figure, format_time
    from lorry_registry.records.adapter_names import shorten_base

    champion, manifest = entry.champion, entry.manifest
    if champion is None or manifest is None:
        return (entry.task, *(NOTHING for _ in range(width - 1)))
    headline = manifest.evaluation.headline
    return (
        entry.task,
        f"v{champion.version}",
        manifest.evaluation.name_metric(manifest.evaluation.primary),
        format_figure(headline.value),
        f"{format_figure(headline.low)} to {format_figure(headline.high)}",
        manifest.kind,
        shorten_base(manifest.base.model),
        manifest.method,
        f"{manifest.parameters.trained:,}",
        format_size(manifest.size_bytes),
        shorten_digest(champion.adapter_id),
        format_time(champion.promoted_at),
    )
