"""The arguments and options of every command that reads task files."""

from pathlib import Path

import click

overrides_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change a field of every task, for example method.r=16; may be repeated.",
)
files_argument = click.argument(
    "files", nargs=-1, required=True, metavar="TASK.yaml...", type=click.Path(path_type=Path)
)
