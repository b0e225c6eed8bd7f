"""Errors as one JSON document on stdout, if ``--json`` asked for one.

The message for people goes to stderr in any case. A command that has printed its own document before it fails
prints no second one: stdout stays one document.
"""

import json
from typing import Any

import click
from pydantic import JsonValue

from lorry_registry.errors import Fault, InvalidDataError, InvalidTaskError, LorryError
from lorry_registry.text.scrubbing import scrub_text

# The state of one command line, which click shares among the contexts of a group and its commands.
_ASKED, _PRINTED = "lorry.json-asked", "lorry.json-printed"


def note_json_asked(ctx: click.Context, _: click.Parameter, is_asked: bool) -> bool:
    """Remember that ``--json`` was given: a callback of the option."""
    ctx.meta[_ASKED] = is_asked
    return is_asked


def note_json_printed() -> None:
    """Remember that the command has printed a document, or has begun to."""
    ctx = click.get_current_context(silent=True)
    if ctx is not None:
        ctx.meta[_PRINTED] = True


def print_json_error(ctx: click.Context, error: LorryError) -> None:
    """Print an error as JSON if ``--json`` was given and nothing was printed yet."""
    if ctx.meta.get(_ASKED) and not ctx.meta.get(_PRINTED):
        click.echo(scrub_text(json.dumps({"error": describe_error(error)}, indent=2)))


def describe_error(error: LorryError) -> dict[str, JsonValue]:
    """Return an error as JSON: class, exit code, what, where and todo, and its faults if it has a list."""
    described: dict[str, JsonValue] = {
        "kind": type(error).__name__,
        "exit_code": error.exit_code,
        "what": error.what,
        "where": error.where,
        "todo": error.todo,
    }
    if isinstance(error, InvalidTaskError | InvalidDataError):
        described["total"] = error.total
        described["faults"] = [_describe_fault(fault) for fault in error.faults]
    return described


def _describe_fault(fault: Fault) -> dict[str, Any]:
    return {
        "document": fault.document,
        "line": fault.line,
        "where": fault.where,
        "what": fault.what,
        "remedy": fault.remedy,
    }
