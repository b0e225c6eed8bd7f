"""The arguments and options of every command that reads task files."""

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from lorry_registry.cli.edge import complete_tasks

overrides_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change a field of every task, for example method.r=16; may be repeated.",
)


def complete_tasks_or_files(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the registry's tasks whose names begin so, and let the shell offer files where there is none."""
    names = [CompletionItem(name) for name in complete_tasks(ctx, param, incomplete)]
    return [CompletionItem(incomplete, type="file"), *names]


files_argument = click.argument(
    "files", nargs=-1, required=True, metavar="TASK.yaml...", type=click.Path(path_type=Path)
)
