"""Commands that only read: ``tasks``, ``show``, ``history``, ``resolve``."""

from typing import Any

import click

from lorry_registry.cli.edge import (
    format_examples,
    json_option,
    open_registry,
    print_json,
    version_option,
)
from lorry_registry.digests import shorten_digest
from lorry_registry.errors import LorryError
from lorry_registry.ledger import Event
from lorry_registry.manifest import Manifest
from lorry_registry.promotion import find_version
from lorry_registry.registry import Registry, Resolution, TaskEntry
from lorry_registry.sizes import format_size

_NO_TASKS = """No task has an adapter yet in {store}

Train one and register it:
  lorry run TASK.yaml
Check a task file without training:
  lorry validate TASK.yaml
Look somewhere else:
  LORRY_STORE=FOLDER lorry tasks"""


@click.command(
    "tasks",
    epilog=format_examples(
        "lorry tasks", "lorry tasks --json", "lorry tasks --json | jq -r '.[] | [.task, .adapter_id] | @tsv'"
    ),
)
@json_option
def show_tasks(as_json: bool) -> None:
    """Show which adapter belongs to which task."""
    registry = open_registry()
    entries, problems = _read_entries(registry)
    if as_json:
        print_json([_describe_entry(entry) for entry in entries])
    elif entries:
        _print_entries(entries)
    elif not problems:
        click.echo(_NO_TASKS.format(store=registry.store.address))
    for problem in problems[:-1]:
        click.echo(f"error: {problem}", err=True)
    if problems:
        # One damaged task does not hide the others, and is not passed over in silence.
        raise problems[-1]


@click.command(
    "show",
    epilog=format_examples(
        "lorry show reviews", "lorry show reviews --version v2", "lorry show reviews --json"
    ),
)
@click.argument("task")
@version_option
@json_option
def show_version(task: str, version: int | None, as_json: bool) -> None:
    """Show all that is known about an adapter.

    Its metrics, its base, how it was trained, its files, and why the gate decided as it did.
    """
    registry = open_registry()
    found = registry.resolve(task, version)
    registered = find_version(registry.ledger.read_history(task), found.version, task=task).registered
    if as_json:
        print_json(_describe_version(found, registered))
    else:
        _print_version(found, registered)


@click.command("history", epilog=format_examples("lorry history reviews", "lorry history reviews --json"))
@click.argument("task")
@json_option
def show_history(task: str, as_json: bool) -> None:
    """Show what happened to a task, and why.

    Every version that was registered and every move of the champion, the oldest first.
    """
    events = open_registry().ledger.read_history(task)
    if as_json:
        print_json([{**event.model_dump(mode="json"), "digest": event.digest} for event in events])
        return
    from lorry_registry.cli.tables import Column, format_time, print_table

    columns = (
        Column("#", "right"),
        Column("When"),
        Column("By", rank=2),
        Column("What", rank=3),
        Column("Version", "right"),
        Column("Champion"),
        Column("Adapter", rank=1),
        Column("Why", wraps=True),
    )
    rows = [
        (
            str(event.sequence),
            format_time(event.at),
            event.by,
            event.action,
            f"v{event.version}",
            _format_move(event),
            shorten_digest(event.adapter_id),
            "; ".join(event.reasons),
        )
        for event in events
    ]
    print_table(columns, rows)


@click.command(
    "resolve",
    epilog=format_examples(
        "lorry resolve reviews",
        "lorry resolve reviews --version 2",
        'cp -r "$(lorry resolve reviews --json | jq -r .path)" adapter',
    ),
)
@click.argument("task")
@version_option
@json_option
def resolve_task(task: str, version: int | None, as_json: bool) -> None:
    """Print where a task's adapter is.

    Its address, its digest, and the base that it must be loaded on. Nothing is downloaded; ``path`` is null
    when the store is not on this machine.
    """
    found = open_registry().resolve(task, version)
    base = found.manifest.base
    if as_json:
        print_json(
            {
                "task": found.task,
                "version": found.version,
                "adapter_id": found.adapter_id,
                "uri": found.uri,
                "path": str(found.path) if found.path else None,
                "base": base.model,
                "base_fingerprint": base.fingerprint,
            }
        )
        return
    from lorry_registry.cli.tables import print_fields

    print_fields(
        {
            "Task": found.task,
            "Version": _format_version(found),
            "Adapter": found.adapter_id,
            "Address": found.uri,
            "Path": str(found.path) if found.path else "",
            "Base": _format_base(found.manifest),
            "Fingerprint": base.fingerprint,
        }
    )


def _read_entries(registry: Registry) -> tuple[list[TaskEntry], list[LorryError]]:
    entries: list[TaskEntry] = []
    problems: list[LorryError] = []
    for task in registry.ledger.list_tasks():
        try:
            entries.append(registry.describe_task(task))
        except LorryError as error:
            problems.append(error)
    return entries, problems


def _describe_entry(entry: TaskEntry) -> dict[str, Any]:
    champion, manifest = entry.champion, entry.manifest
    headline = manifest.evaluation.headline if manifest else None
    return {
        "task": entry.task,
        "kind": manifest.kind if manifest else None,
        "base": manifest.base.model if manifest else None,
        "method": manifest.method if manifest else None,
        "version": champion.version if champion else None,
        "adapter_id": champion.adapter_id if champion else None,
        "metric": manifest.evaluation.primary if manifest else None,
        "value": headline.value if headline else None,
        "interval": [headline.low, headline.high] if headline else None,
        "trained_parameters": manifest.parameters.trained if manifest else None,
        "size_bytes": manifest.size_bytes if manifest else None,
        "promoted_at": champion.model_dump(mode="json")["promoted_at"] if champion else None,
    }


def _print_entries(entries: list[TaskEntry]) -> None:
    from lorry_registry.cli.tables import Column, print_table

    columns = (
        Column("Task"),
        Column("Version", "right"),
        Column("Metric", rank=1),
        Column("Value", "right"),
        Column("95 % interval", rank=2),
        Column("Kind", rank=8),
        Column("Base", rank=7),
        Column("Method", rank=3),
        Column("Trained", "right", rank=5),
        Column("Size", "right", rank=4),
        Column("Adapter"),
        Column("Promoted", rank=6),
    )
    print_table(columns, [_format_entry(entry, len(columns)) for entry in entries])
    for entry in entries:
        if entry.champion is None:
            count = f"{entry.versions} version{'' if entry.versions == 1 else 's'}"
            click.echo(f"{entry.task} has {count} and no champion yet; see why: lorry history {entry.task}")


def _format_entry(entry: TaskEntry, width: int) -> tuple[str, ...]:
    from lorry_registry.cli.tables import NOTHING, format_figure, format_time, shorten_base

    champion, manifest = entry.champion, entry.manifest
    if champion is None or manifest is None:
        return (entry.task, *(NOTHING for _ in range(width - 1)))
    headline = manifest.evaluation.headline
    return (
        entry.task,
        f"v{champion.version}",
        manifest.evaluation.primary,
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


def _describe_version(found: Resolution, registered: Event) -> dict[str, Any]:
    event = registered.model_dump(mode="json")
    return {
        "task": found.task,
        "version": found.version,
        "is_champion": found.promoted_at is not None,
        "adapter_id": found.adapter_id,
        "uri": found.uri,
        "path": str(found.path) if found.path else None,
        "registered_at": event["at"],
        "registered_by": event["by"],
        "promoted_at": found.promoted_at.isoformat() if found.promoted_at else None,
        "reasons": event["reasons"],
        "details": event["details"],
        "manifest": found.manifest.model_dump(mode="json"),
    }


def _print_version(found: Resolution, registered: Event) -> None:
    from lorry_registry.cli import tables

    manifest = found.manifest
    click.secho(f"{found.task} {_format_version(found)}", bold=True)
    if manifest.description:
        click.echo(tables.clean_text(manifest.description.strip()))
    click.echo()
    parameters = manifest.parameters
    share = parameters.trained / parameters.total if parameters.total else 0.0
    tables.print_fields(
        {
            "Adapter": found.adapter_id,
            "Address": found.uri,
            "Kind": manifest.kind,
            "Labels": ", ".join(manifest.labels or ()),
            "Method": manifest.method,
            "Base": _format_base(manifest),
            "Fingerprint": manifest.base.fingerprint,
            "Trained": f"{parameters.trained:,} of {parameters.total:,} parameters ({share:.2%}), "
            f"{parameters.head:,} of them in the head",
            "Size": format_size(manifest.size_bytes),
            "Data": shorten_digest(manifest.inputs.data_digest),
            "Owner": manifest.owner,
            "Registered": f"{tables.format_time(registered.at)} by {registered.by}",
            "Promoted": tables.format_time(found.promoted_at) if found.promoted_at else "",
        }
    )
    evaluation = manifest.evaluation
    tables.print_heading(f"Metrics on {evaluation.examples:,} examples of {evaluation.split}")
    tables.print_table(
        (tables.Column("Metric"), tables.Column("Value", "right"), tables.Column("95 % interval")),
        [
            (
                f"{name} *" if name == evaluation.primary else name,
                tables.format_figure(metric.value),
                f"{tables.format_figure(metric.low)} to {tables.format_figure(metric.high)}",
            )
            for name, metric in evaluation.list_metrics()
        ],
    )
    click.echo("* the gate looks at this one")
    tables.print_heading("Files")
    tables.print_table(
        (tables.Column("File"), tables.Column("Size", "right"), tables.Column("SHA-256")),
        [(file.name, format_size(file.size), shorten_digest(file.sha256)) for file in manifest.files],
    )
    if registered.reasons:
        tables.print_heading("Why")
        tables.print_bullets(registered.reasons)


def _format_version(found: Resolution) -> str:
    return f"v{found.version} (champion)" if found.promoted_at else f"v{found.version} (not the champion)"


def _format_base(manifest: Manifest) -> str:
    revision = f" at {manifest.base.revision}" if manifest.base.revision else ""
    return f"{manifest.base.model}{revision}"


def _format_move(event: Event) -> str:
    if event.champion_after is None:
        return "none"
    if not event.is_promotion:
        return f"v{event.champion_after}"
    before = f"v{event.champion_before}" if event.champion_before else "none"
    return f"{before} -> v{event.champion_after}"
