"""Text for people: a terminal gets sentences broken between words, a pipe each on one line.

All text that a command shows passes :func:`clean_text`, the one place that takes out what would steer a
terminal.
"""

import os
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
# Control characters (of 8 bits too), separators of lines and paragraphs, marks of writing direction, halves
# of characters. Spaces of other widths and joiners are a part of languages and emojis.
_STEERING = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def clean_text(text: str) -> str:
    """Return a text without characters that would steer the terminal; lines stay, a tab becomes a space."""
    return _STEERING.sub("\N{REPLACEMENT CHARACTER}", text.replace("\t", " "))


def print_line(text: str = "", *, err: bool = False) -> None:
    """Print text as it is, but for what would steer the terminal: a command to copy, or a short line."""
    click.echo(clean_text(text), err=err)


def print_prose(text: str, *, hanging: str = _HANGING, err: bool = False) -> None:
    """Print lines of sentences, on a terminal as :func:`fit_prose` returns them.

    Args:
        text: The lines.
        hanging: What continued lines begin with, beside the space that the line begins with.
        err: Whether to print to stderr.
    """
    click.echo(fit_prose(text, sys.stderr if err else sys.stdout, hanging=hanging), err=err)


def fit_prose(text: str, stream: IO[str], *, hanging: str = _HANGING) -> str:
    """Return clean lines that fit the terminal that a stream is, or the clean text as it is."""
    width, text = find_width(stream), clean_text(text)
    return text if width is None else wrap_prose(text, width, hanging=hanging)


def is_live(stream: IO[str]) -> bool:
    """Return whether a stream is a terminal that can redraw lines, which a dumb one cannot."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


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
