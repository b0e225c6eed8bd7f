"""A command group that imports a command only when it is called, and turns errors into exit codes."""

import difflib
import errno
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any, NamedTuple, NoReturn

import click
from click.shell_completion import CompletionItem

from lorry_registry.cli.error_output import print_json_error
from lorry_registry.cli.prose import fit_prose
from lorry_registry.cli.termination import EXIT_TERMINATED, Terminated
from lorry_registry.errors import LorryError, MissingExtraError, StoreError, UsageError
from lorry_registry.text.scrubbing import scrub_text

EXIT_INTERRUPTED = 130
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class LazyCommand(NamedTuple):
    """Where a command is, and what ``--help`` says about it before it is imported.

    Attributes:
        name: What is typed.
        target: ``module:attribute`` of the command.
        help: One short sentence, the same as the command's own.
        section: The heading above it; sections appear in the order of their first command.
        extras: What to install when a library that the command needs is missing.
    """

    name: str
    target: str
    help: str
    section: str = "Commands"
    extras: str = "train,pipelines"


class ReportedError(click.ClickException):
    """A ``LorryError`` on its way to the terminal: its message on stderr, its exit code."""

    def __init__(self, error: LorryError) -> None:
        super().__init__(scrub_text(str(error)))
        # click keeps the code on the class and reads it from the instance; ours differs by error.
        self.exit_code = error.exit_code  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message to stderr."""
        stream = file or sys.stderr
        heading = "error: "
        click.secho(heading, fg="red", bold=True, nl=False, file=stream)
        click.echo(fit_prose(heading + self.message, stream).removeprefix(heading), file=stream)


class LazyGroup(click.Group):
    """A group whose commands are known by name and imported on use.

    Args:
        lazy_commands: The commands, in the order in which ``--help`` lists them.
        attributes: What ``click.Group`` takes.
    """

    def __init__(self, *, lazy_commands: Sequence[LazyCommand] = (), **attributes: Any) -> None:
        super().__init__(**attributes)
        self._lazy = {command.name: command for command in lazy_commands}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, the lazy ones first, in their order."""
        return [*self._lazy, *(name for name in super().list_commands(ctx) if name not in self._lazy)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now if it is a lazy one."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name].target.partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            explained = self._explain_missing_module(cmd_name, error)
            if explained is None:
                raise
            raise explained from error
        if not isinstance(command, click.Command):
            raise TypeError(f"{self._lazy[cmd_name].target} is not a click command")
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that begin so, without importing them, and this group's own options."""
        found = [
            CompletionItem(lazy.name, help=lazy.help)
            for lazy in self._lazy.values()
            if lazy.name.startswith(incomplete)
        ]
        return [*found, *super(click.Group, self).shell_complete(ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that was typed; suggest a similar one when there is none of that name."""
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1, cutoff=0.5)
            advice = f"Did you mean {near[0]!r}?" if near else f"See: {ctx.command_path} --help"
            raise click.UsageError(f"There is no command {name!r}. {advice}", ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in sections, without importing any of them."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for lazy in self._lazy.values():
            sections.setdefault(lazy.section, []).append((lazy.name, lazy.help))
        for name in super().list_commands(ctx):
            command = super().get_command(ctx, name)
            if name not in self._lazy and command is not None and not command.hidden:
                rows = sections.setdefault("Commands", [])
                rows.append((name, command.get_short_help_str(limit=formatter.width)))
        # One width for all sections, so that the columns line up.
        widest = max((len(name) for rows in sections.values() for name, _ in rows), default=0)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(widest), text) for name, text in rows])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn a ``LorryError`` into a message and an exit code."""
        try:
            return super().invoke(ctx)
        except LorryError as error:
            print_json_error(ctx, error)
            raise ReportedError(error) from error
        except click.UsageError as error:
            print_json_error(ctx, UsageError(error.format_message()))
            raise
        except ModuleNotFoundError as error:
            explained = self._explain_missing_module(ctx.invoked_subcommand or "", error)
            if explained is None:
                raise
            print_json_error(ctx, explained)
            raise ReportedError(explained) from error
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            full = _explain_full_disk(error)
            print_json_error(ctx, full)
            raise ReportedError(full) from error

    def _explain_missing_module(self, name: str, error: ModuleNotFoundError) -> MissingExtraError | None:
        # A missing module of our own is a bug, not a missing extra: it is raised as it is.
        if not error.name or error.name.startswith("lorry_") or name not in self._lazy:
            return None
        return MissingExtraError(
            f"this command needs {error.name.partition('.')[0]!r}, which is not installed",
            where=name,
            todo=f"pip install 'lorry[{self._lazy[name].extras}]'",
        )


def run_cli(group: click.Command, *, name: str = "lorry", arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit with its exit code.

    Errors go to stderr; Ctrl-C ends with 130, SIGTERM with 143; a closed pipe (``lorry tasks | head``) ends
    quietly.

    Args:
        group: The top-level group.
        name: The name that usage messages show.
        arguments: The arguments; None: those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows a substitute; that is no reason to fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    # For messages that are printed when the command's own context is closed.
    with click.Context(group, info_name=name, color=_choose_colour(os.environ)):
        code = _run(group, name, arguments)
    sys.exit(code)


def _choose_colour(environment: Mapping[str, str]) -> bool | None:
    """Return False where the environment asks for plain text (no-color.org); None: the stream decides."""
    return False if environment.get("NO_COLOR") or environment.get("TERM") == "dumb" else None


def _explain_full_disk(error: OSError) -> StoreError:
    return StoreError(
        f"cannot be written: {error.strerror}",
        where=str(error.filename or "a file that the command writes"),
        todo="free space on that disk, or write to another, and repeat the command",
    )


def _run(group: click.Command, name: str, arguments: Sequence[str] | None) -> int:
    try:
        color = click.get_current_context().color
        outcome = group.main(args=arguments, prog_name=name, standalone_mode=False, color=color)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        cause = error if isinstance(error, KeyboardInterrupt) else error.__cause__
        if isinstance(cause, Terminated):
            click.echo("terminated", err=True)
            return EXIT_TERMINATED
        if isinstance(cause, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            return EXIT_INTERRUPTED
        click.echo("aborted", err=True)
        return 1
    # Without standalone mode, click returns the code of ctx.exit(code), or else what the command returned.
    return outcome if isinstance(outcome, int) else 0
