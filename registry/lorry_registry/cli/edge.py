"""The edge of the command line: settings from the environment, shared options, printing."""

import json
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lorry_registry.cli.error_output import note_json_asked, note_json_printed, print_json_error
from lorry_registry.cli.prose import clean_text, fit_prose, print_prose
from lorry_registry.errors import LorryError, NotFoundError, StoreError
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings, find_home_above
from lorry_registry.text.scrubbing import scrub_text

if TYPE_CHECKING:
    from lorry_registry.mlflow.index import MlflowIndex

_VERSION = re.compile(r"[vV]?([1-9][0-9]{0,8})")

_USE_ABOVE = "give the command there, or put a lorry.toml beside it (an empty one will do)"


def parse_version(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    """Return the number in ``3`` or ``v3``: a callback for an argument or an option.

    Raises:
        click.BadParameter: It is neither.
    """
    if text is None:
        return None
    match = _VERSION.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a version; write 3 or v3", ctx, param)
    return int(match.group(1))


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    # Before the others, so that a fault of theirs is known to be for a machine.
    is_eager=True,
    callback=note_json_asked,
    help="Print JSON, for machines.",
)


def complete_tasks(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the registry's tasks whose names begin so, for a shell's completion, which shows no error."""
    try:
        return [name for name in open_registry().ledger.list_names() if name.startswith(incomplete)]
    except LorryError:
        return []


version_option = click.option(
    "--version",
    "version",
    callback=parse_version,
    metavar="N",
    help="A version, 3 or v3.  [default: the champion]",
)


def format_examples(*lines: str) -> str:
    r"""Return an epilog with examples; ``\b`` keeps click from wrapping them."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


task_argument = click.argument("task", shell_complete=complete_tasks)


def load_settings() -> Settings:
    """Return the settings of this process: its environment, and the nearest ``lorry.toml``.

    A registry above the working folder that the command does not use is warned of.

    Raises:
        InvalidTaskError: ``lorry.toml`` has faults.
    """
    above = find_home_above(os.environ, Path.cwd())
    if above is not None:
        print_warning(f"{_describe_unused(above)}; {_USE_ABOVE}")
    return Settings.load(os.environ, Path.cwd())


def read_environment() -> dict[str, str]:
    """Return this process's environment, for the processes that a command starts."""
    return dict(os.environ)


def open_registry() -> Registry:
    """Return the registry that the settings name.

    Raises:
        InvalidTaskError: ``lorry.toml`` has faults.
        NotFoundError: There is no registry here, but one in a folder above.
        StoreError: No store serves the address.
    """
    above = find_home_above(os.environ, Path.cwd())
    if above is not None:
        raise NotFoundError(_describe_unused(above), where=str(Path.cwd()), todo=_USE_ABOVE)
    return Registry.open(Settings.load(os.environ, Path.cwd()))


def _describe_unused(home: Path) -> str:
    return f"there is no registry here, but one in {home}"


def open_index(settings: Settings) -> "MlflowIndex":
    """Return the index in MLflow, with the limits of time of a command that a person waits for."""
    from lorry_registry.mlflow.index import MlflowIndex
    from lorry_registry.mlflow.network import BRIEF

    return MlflowIndex(settings.tracking_uri, limits=BRIEF)


def print_json(document: Any) -> None:
    """Print a document as indented JSON."""
    note_json_printed()
    click.echo(_encode(document))


def print_json_entries(entries: Iterable[Any]) -> None:
    """Print documents as one indented JSON list, each as it comes."""
    is_empty = True
    for entry in entries:
        note_json_printed()
        click.echo("[" if is_empty else ",")
        click.echo(textwrap.indent(_encode(entry), "  "), nl=False)
        is_empty = False
    click.echo("[]" if is_empty else "\n]")


def _encode(document: Any) -> str:
    """Return a document as indented JSON; what would steer a terminal is escaped, as JSON escapes it."""
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(document, indent=2, ensure_ascii=not is_unicode)
    return text if clean_text(text) == text else json.dumps(document, indent=2)


def write_output(path: Path, text: str) -> None:
    """Write a file that a user asked for; it appears whole, in place of one that may be there.

    Raises:
        StoreError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole_text(path, text)
    except OSError as error:
        raise StoreError(
            f"cannot be written: {error.strerror or error}",
            where=str(path),
            todo="choose a folder that can be written",
        ) from error


def fail_after(problems: Mapping[str, LorryError]) -> None:
    """Print each problem to stderr and exit with the first one's exit code; return when there are none.

    If nothing was printed as JSON yet and JSON is wanted, the first problem is printed as JSON as well.

    Args:
        problems: What failed -> its error.
    """
    for name, problem in problems.items():
        print_prose(scrub_text(f"error: {name}: {problem}"), err=True)
    for problem in problems.values():
        ctx = click.get_current_context()
        print_json_error(ctx, problem)
        ctx.exit(problem.exit_code)


def print_warning(message: str) -> None:
    """Print a warning to stderr."""
    heading = "warning: "
    click.secho(heading, fg="yellow", bold=True, nl=False, err=True)
    click.echo(fit_prose(heading + message, sys.stderr).removeprefix(heading), err=True)
