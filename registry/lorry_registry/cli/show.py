"""``lorry show``: everything that is recorded about one version of a task's adapter."""

from typing import Any

import click

from lorry_registry.cli.edge import (
    format_examples,
    json_option,
    open_registry,
    print_json,
    task_argument,
    version_option,
)
from lorry_registry.cli.prose import clean_text, print_prose
from lorry_registry.errors import NotFoundError
from lorry_registry.files.digests import shorten_digest
from lorry_registry.ledger.events import Event
from lorry_registry.ledger.promotion import find_version
from lorry_registry.ledger.version_status import (
    VersionStatus,
    describe_change,
    explain_status,
    find_statuses,
    name_version_status,
)
from lorry_registry.manifest import Manifest
from lorry_registry.records.probe_description import describe_linear_probe
from lorry_registry.records.provenance import find_provenance, read_provenance
from lorry_registry.records.training_record import TrainingRecord, describe_training, read_record
from lorry_registry.registry import Registry, Resolution
from lorry_registry.text.sizes import format_probability, format_size


@click.command(
    "show",
    epilog=format_examples(
        "lorry show reviews",
        "lorry show reviews --version v2 --json",
        'cp -r "$(lorry show reviews --json | jq -r .path)" adapter',
        "lorry show reviews --provenance --json > provenance.json",
    ),
)
@task_argument
@version_option
@click.option(
    "--provenance", "is_provenance", is_flag=True, help="Show instead how the run says that it was made."
)
@json_option
def show_version(task: str, version: int | None, is_provenance: bool, as_json: bool) -> None:
    """Show everything recorded about an adapter, and where it is.

    Its metrics, its base, how it was trained, its files and where they are, and why the gate decided as it
    did. In JSON, 'path' is null if the store is not on this machine. With
    --provenance: from which source, in which image and by which run it was made, as an in-toto statement
    with SLSA provenance in JSON.
    """
    registry = open_registry()
    resolution = registry.resolve(task, version)
    events = registry.ledger.read_history(task)
    registered = find_version(events, resolution.version, task=task).registered
    if is_provenance:
        statement = _read_statement(registry, resolution, registered)
        print_json(statement) if as_json else _print_statement(resolution, statement)
        return
    record = read_record(registry.store, resolution.manifest, registered)
    status = find_statuses(events)[resolution.version]
    if as_json:
        print_json(_describe_version(resolution, registered, record, status))
    else:
        _print_version(resolution, registered, record, status)


def _read_statement(registry: Registry, resolution: Resolution, registered: Event) -> dict[str, Any]:
    digest = find_provenance(registered)
    if digest is None:
        raise NotFoundError(
            "nothing is recorded about how it was made",
            where=f"{resolution.task} v{resolution.version}",
            todo="it was registered by hand; train it to record it",
        )
    return read_provenance(registry.store, resolution.manifest, digest)


def _format_version(resolution: Resolution) -> str:
    status = "champion" if resolution.promoted_at else "not the champion"
    return f"v{resolution.version} ({status})"


def _format_base(manifest: Manifest) -> str:
    revision = f" at {manifest.base.revision}" if manifest.base.revision else ""
    return f"{manifest.base.model}{revision}"


def _print_statement(resolution: Resolution, statement: dict[str, Any]) -> None:
    from lorry_registry.cli import tables

    predicate = statement["predicate"]
    details = predicate["runDetails"]
    metadata = details.get("metadata", {})
    dependencies = predicate["buildDefinition"]["resolvedDependencies"]
    click.secho(clean_text(f"{resolution.task} {_format_version(resolution)}"), bold=True)
    tables.print_fields(
        {
            "Builder": str(details["builder"]["id"]),
            "Run": str(metadata.get("invocationId", "")),
            "Started": str(metadata.get("startedOn", "")),
            "Finished": str(metadata.get("finishedOn", "")),
            **{entry["name"]: str(entry["uri"]) for entry in details.get("byproducts", ())},
        }
    )
    tables.print_heading("Made from")
    tables.print_table(
        (tables.Column("What"), tables.Column("Where", wraps=True), tables.Column("Digest")),
        [
            (
                str(entry["name"]) + (", with changes" if entry.get("annotations", {}).get("dirty") else ""),
                str(entry.get("uri", "")),
                " ".join(shorten_digest(str(value)) for value in entry.get("digest", {}).values()),
            )
            for entry in dependencies
        ],
    )


def _describe_version(
    resolution: Resolution, registered: Event, record: TrainingRecord, status: VersionStatus
) -> dict[str, Any]:
    event = registered.model_dump(mode="json")
    return {
        "task": resolution.task,
        "version": resolution.version,
        "is_champion": resolution.promoted_at is not None,
        "adapter_id": resolution.adapter_id,
        "uri": resolution.uri,
        "path": str(resolution.path) if resolution.path else None,
        "registered_at": event["at"],
        "registered_by": event["by"],
        "promoted_at": resolution.promoted_at.isoformat() if resolution.promoted_at else None,
        "reasons": event["reasons"],
        "details": event["details"],
        "status": name_version_status(status),
        "changes": [change.model_dump(mode="json") for change in status.changes],
        "data": record.data.model_dump(mode="json") if record.data else None,
        "training": record.facts.model_dump(mode="json") if record.facts else None,
        "manifest": resolution.manifest.model_dump(mode="json"),
    }


def _print_version(
    resolution: Resolution, registered: Event, record: TrainingRecord, status: VersionStatus
) -> None:
    """Print what a person asks first before what machines compare: score and status, then digests."""
    from lorry_registry.cli import tables

    manifest = resolution.manifest
    click.secho(
        clean_text(f"{resolution.task} v{resolution.version} ({name_version_status(status)})"), bold=True
    )
    if manifest.description:
        print_prose(manifest.description.strip(), hanging="")
    _print_score(manifest)
    if status.changes:
        # What was done last is what counts.
        tables.print_heading(explain_status(status))
        tables.print_bullets(
            [describe_change(event, resolution.version) for event in reversed(status.changes)]
        )
    if status.reasons:
        tables.print_heading("What the gate said of it")
        tables.print_bullets(status.reasons)
    parameters = manifest.parameters
    share = parameters.trained / parameters.total if parameters.total else 0.0
    tables.print_heading("What it is")
    tables.print_fields(
        {
            "Task type": manifest.kind,
            "Labels": ", ".join(manifest.labels or ()),
            "Base": _format_base(manifest),
            "Trained": f"{parameters.trained:,} of {parameters.total:,} parameters ({share:.2%}), "
            f"{parameters.head:,} of them in the head",
            "Size": format_size(manifest.size_bytes),
            "Owner": manifest.owner,
            "Registered": f"{tables.format_time(registered.at)} by {registered.by}",
            "Promoted": tables.format_time(resolution.promoted_at) if resolution.promoted_at else "",
        }
    )
    tables.print_heading("How it was trained")
    tables.print_fields(describe_training(manifest, record))
    if record.warnings:
        tables.print_heading("To know of its data")
        tables.print_bullets(record.warnings)
    tables.print_heading("Files")
    tables.print_table(
        (tables.Column("File"), tables.Column("Size", "right"), tables.Column("SHA-256")),
        [(file.name, format_size(file.size), shorten_digest(file.sha256)) for file in manifest.files],
    )
    click.echo()
    tables.print_fields(
        {
            "Adapter": resolution.adapter_id,
            "Address": resolution.uri,
            "Path": str(resolution.path) if resolution.path else "",
            "Fingerprint": manifest.base.fingerprint,
            "Data digest": shorten_digest(manifest.inputs.data_digest),
        }
    )


def _print_score(manifest: Manifest) -> None:
    from lorry_registry.cli import tables

    evaluation = manifest.evaluation
    tables.print_heading(f"Metrics on {evaluation.examples:,} examples of {evaluation.split}")
    tables.print_table(
        (tables.Column("Metric"), tables.Column("Value", "right"), tables.Column("95 % interval")),
        [
            (
                f"{manifest.evaluation.name_metric(name)}{' *' if name == evaluation.primary else ''}",
                tables.format_figure(metric.value),
                f"{tables.format_figure(metric.low)} to {tables.format_figure(metric.high)}",
            )
            for name, metric in evaluation.list_metrics()
        ],
    )
    click.echo("* the metric that the gate decides by")
    if evaluation.baselines:
        tables.print_heading(f"Trivial baselines, in {evaluation.primary} on the same examples")
        tables.print_table(
            (
                tables.Column("Baseline"),
                tables.Column("Value", "right"),
                tables.Column("Gain", "right"),
                tables.Column("Above 0 with", "right"),
                tables.Column("Examples", "right"),
            ),
            [
                (
                    baseline.name,
                    tables.format_figure(baseline.value),
                    f"{baseline.gain:+z.3f}",
                    f"confidence {format_probability(baseline.confidence, digits=1)}",
                    f"{baseline.examples:,}",
                )
                for baseline in evaluation.baselines
            ],
        )
    probe = describe_linear_probe(manifest.method, evaluation)
    if probe:
        print_prose(probe, hanging="")
