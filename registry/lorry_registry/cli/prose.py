"""Sentences for people: a terminal gets them broken between words, a pipe each on one line."""

import re
import shutil
import sys
import textwrap
from typing import IO

import click

# A command that is to be copied stands after a colon; broken into two lines, its first would run alone.
_COMMAND = re.compile(r"(?<=: )lorry [^;\n]+")
_GLUE = "\0"
_HANGING = "  "


def print_prose(text: str, *, hanging: str = _HANGING, err: bool = False) -> None:
    """Print lines of sentences, on a terminal as :func:`fit_prose` returns them.

    Args:
        text: The lines.
        hanging: What continued lines begin with, beside the space that the line begins with.
        err: Whether to print to stderr.
    """
    click.echo(fit_prose(text, sys.stderr if err else sys.stdout, hanging=hanging), err=err)


def fit_prose(text: str, stream: IO[str], *, hanging: str = _HANGING) -> str:
    """Return lines that fit the terminal that a stream is, or the text as it is."""
    width = find_width(stream)
    return text if width is None else wrap_prose(text, width, hanging=hanging)


def find_width(stream: IO[str]) -> int | None:
    """Return how many characters a line of a terminal has; None: the stream is no terminal."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def wrap_prose(text: str, width: int, *, hanging: str = _HANGING) -> str:
    """Return lines of at most a width, broken between words only: a path or an address stays whole.

    A command at the end of a sentence stays on one line as well, if it fits there.

    Args:
        text: The lines.
        width: The characters of a line.
        hanging: What continued lines begin with, beside the space that the line begins with.
    """
    lines: list[str] = []
    for line in text.split("\n"):
        space = " " * (len(line) - len(line.lstrip(" ")))
        lines += textwrap.wrap(
            _glue_commands(line.lstrip(" "), width - len(space) - len(hanging)),
            width,
            initial_indent=space,
            subsequent_indent=space + hanging,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return "\n".join(lines).replace(_GLUE, " ")


def _glue_commands(line: str, room: int) -> str:
    def glue(found: re.Match[str]) -> str:
        return found[0].replace(" ", _GLUE) if len(found[0]) <= room else found[0]

    return _COMMAND.sub(glue, line)
