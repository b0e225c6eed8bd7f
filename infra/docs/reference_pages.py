"""mkdocs' hooks: tables of the reference are made from the code, where a comment in a page asks for one.

<!-- generated: commands -->
"""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import click
from mkdocs.exceptions import Abort
from task_reference import list_fields, list_kinds, list_methods

from lorry_pipelines.cli import COMMANDS, lorry
from lorry_pipelines.cli.retrain import EXIT_LEFT
from lorry_pipelines.cli.stale import EXIT_STALE
from lorry_registry.cli.lazy import EXIT_INTERRUPTED
from lorry_registry.cli.termination import EXIT_TERMINATED
from lorry_registry.errors import LorryError
from lorry_registry.settings import SETTINGS

_MARK = re.compile(r"^<!-- generated: (?P<name>[a-z-]+)(?: (?P<of>[a-z_]+))? -->$", re.MULTILINE)
_SPECIAL = re.compile(r"([\\*_<>\[\]|`])")
# Those that no error has.
_OTHER_CODES = {
    0: "Done.",
    LorryError.exit_code: "Declined, or a defect. `lorry doctor`: something does not work.",
    EXIT_STALE: "Something is out of date: `lorry stale`, `lorry drift`.",
    EXIT_LEFT: "`lorry retrain`: something is left for the next time.",
    EXIT_INTERRUPTED: "Interrupted.",
    EXIT_TERMINATED: "Ended by SIGTERM.",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables where the page asks for them.

    Raises:
        Abort: It asks for one that there is not.
    """

    def fill(found: re.Match[str]) -> str:
        if found["name"] not in _GENERATORS:
            raise Abort(f"there is nothing to generate as {found['name']!r}")
        arguments = (found["of"] or "",) if found["name"] == "fields" else ()
        return "\n".join(_GENERATORS[found["name"]](*arguments))

    return _MARK.sub(fill, markdown)


def list_commands() -> Iterator[str]:
    """Yield the commands in their sections, as ``--help`` lists them."""
    sections: dict[str, list[str]] = {}
    for command in COMMANDS:
        sections.setdefault(str(command.section), []).append(command.name)
    with click.Context(lorry, info_name="lorry") as ctx:
        for section, names in sections.items():
            yield f"## {section}\n"
            for name in names:
                yield from _describe_command(lorry.get_command(ctx, name), name, ctx)


def _describe_command(command: click.Command | None, name: str, parent: click.Context) -> Iterator[str]:
    if command is None:
        raise Abort(f"there is no command {name}")
    with click.Context(command, info_name=name, parent=parent) as ctx:
        yield f"### {ctx.command_path}\n"
        yield _escape(inspect.cleandoc(command.help or "").replace("\b\n", "")) + "\n"
        if isinstance(command, click.Group):
            for below in command.list_commands(ctx):
                yield from _describe_command(command.get_command(ctx, below), below, ctx)
            return
        yield f"```text\n{' '.join((ctx.command_path, *command.collect_usage_pieces(ctx)))}\n```\n"
        for parameter in command.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and record[1] and "--help" not in parameter.opts:
                yield f"`{record[0]}`\n:   {_escape(record[1])}\n"
        if command.epilog:
            examples = inspect.cleandoc(command.epilog.replace("\b\n", "").removeprefix("Examples:\n"))
            yield f"```sh\n{examples}\n```\n"


def list_settings() -> Iterator[str]:
    """Yield the table of settings."""
    yield "| variable | `lorry.toml` | default | what |"
    yield "|---|---|---|---|"
    for setting in SETTINGS:
        key = f"`{setting.key}`" if setting.key else "never"
        yield f"| `{setting.variable}` | {key} | {setting.default} | {setting.what} |"


def list_exit_codes() -> Iterator[str]:
    """Yield the table of exit codes."""
    classes: dict[int, list[type[LorryError]]] = {}
    for error in _list_errors(LorryError):
        # One that lists faults is the base of two others, and never raised.
        if not error.__name__.startswith("_"):
            classes.setdefault(error.exit_code, []).append(error)
    yield "| code | error | what |"
    yield "|---|---|---|"
    for code in sorted(classes.keys() | _OTHER_CODES):
        errors = classes.get(code, [])
        names = ", ".join(f"`{error.__name__}`" for error in errors)
        texts = [_OTHER_CODES[code]] if code in _OTHER_CODES else map(_summarise, errors)
        yield f"| {code} | {names} | {' '.join(texts)} |"


def _list_errors(error: type[LorryError]) -> Iterator[type[LorryError]]:
    yield error
    for below in error.__subclasses__():
        yield from _list_errors(below)


def _summarise(documented: type) -> str:
    return _escape(inspect.cleandoc(documented.__doc__ or "").split("\n\n")[0].replace("\n", " "))


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


_GENERATORS: dict[str, Callable[..., Iterator[str]]] = {
    "kinds": list_kinds,
    "fields": list_fields,
    "methods": list_methods,
    "commands": list_commands,
    "settings": list_settings,
    "exit-codes": list_exit_codes,
}
