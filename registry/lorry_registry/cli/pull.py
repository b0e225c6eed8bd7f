"""``lorry pull``: a verified copy of a task's adapter."""

from pathlib import Path

import click

from lorry_registry.cli.edge import (
    format_examples,
    json_option,
    open_registry,
    print_json,
    task_argument,
    version_option,
)
from lorry_registry.cli.prose import print_line
from lorry_registry.errors import UsageError
from lorry_registry.files.digests import shorten_digest
from lorry_registry.signing.adapter_signatures import PROVENANCE_FOLDER, SIGNATURES_FOLDER
from lorry_registry.text.sizes import format_size


@click.command(
    "pull",
    epilog=format_examples(
        "lorry pull reviews ./adapter",
        "lorry pull reviews ./adapter-v2 --version 2",
        "lorry pull reviews ./adapter --with-provenance --json",
    ),
)
@task_argument
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@version_option
@click.option("--with-provenance", is_flag=True, help="Also copy what the runs say about how they made it.")
@json_option
def pull_adapter(task: str, folder: Path, version: int | None, with_provenance: bool, as_json: bool) -> None:
    """Copy a task's adapter to a folder and verify it.

    DIR must not exist, or be empty; it appears whole or not at all. Every byte is hashed before it does. A
    folder that already holds this adapter is left as it is. Its signatures, if it has any, go to
    DIR/signatures, where 'model_signing verify' reads them.
    """
    if folder.exists() and folder.resolve() == Path.cwd():
        raise UsageError(
            "the folder that you are in would be replaced",
            where=str(folder),
            todo=f"name a folder in it: lorry pull {task} ./{task}",
        )
    registry = open_registry()
    resolution = registry.resolve(task, version)
    sidecars = [SIGNATURES_FOLDER, *([PROVENANCE_FOLDER] if with_provenance else [])]
    manifest = registry.export(resolution.adapter_id, folder, sidecars=sidecars)
    if as_json:
        print_json(
            {
                "task": resolution.task,
                "version": resolution.version,
                "adapter_id": resolution.adapter_id,
                "path": str(folder.absolute()),
                "files": [entry.name for entry in manifest.files],
                "size_bytes": manifest.size_bytes,
            }
        )
        return
    size, digest = format_size(manifest.size_bytes), shorten_digest(resolution.adapter_id)
    print_line(f"{resolution.task} v{resolution.version} ({digest}, {size}) is in {folder}, verified")
