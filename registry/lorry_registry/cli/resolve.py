"""``lorry resolve``: where a task's adapter is."""

import click

from lorry_registry.cli.edge import (
    format_examples,
    json_option,
    open_registry,
    print_json,
    task_argument,
    version_option,
)
from lorry_registry.cli.resolution_fields import format_base, format_version


@click.command(
    "resolve",
    epilog=format_examples(
        "lorry resolve reviews",
        "lorry resolve reviews --version 2",
        'cp -r "$(lorry resolve reviews --json | jq -r .path)" adapter',
    ),
)
@task_argument
@version_option
@json_option
def resolve_task(task: str, version: int | None, as_json: bool) -> None:
    """Print where a task's adapter is.

    Its address, its digest, and the base that it must be loaded on. Nothing is downloaded; in JSON,
    'path' is null if the store is not on this machine.
    """
    resolution = open_registry().resolve(task, version)
    base = resolution.manifest.base
    if as_json:
        print_json(
            {
                "task": resolution.task,
                "version": resolution.version,
                "adapter_id": resolution.adapter_id,
                "uri": resolution.uri,
                "path": str(resolution.path) if resolution.path else None,
                "base": base.model,
                "base_fingerprint": base.fingerprint,
            }
        )
        return
    from lorry_registry.cli.tables import print_fields

    print_fields(
        {
            "Task": resolution.task,
            "Version": format_version(resolution),
            "Adapter": resolution.adapter_id,
            "Address": resolution.uri,
            "Path": str(resolution.path) if resolution.path else "",
            "Base": format_base(resolution.manifest),
            "Fingerprint": base.fingerprint,
        }
    )
