"""Tables and cards for people, drawn with rich.

Into a pipe goes the whole table without colour, at any width; on a terminal the least important columns
give way.
"""

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import click
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorry_registry.cli.prose import clean_text, find_width, fit_prose, print_line, print_prose, wrap_prose

_PIPE_WIDTH = 100_000
# Columns are three spaces apart; one that wraps gets at least 30 characters.
_GAP = 3
_LEAST_WRAPPED = 30
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its heading.
        justify: Numbers are aligned on the right.
        rank: 0 stays; of the others the lowest find room first when the terminal is narrow, and those that
            hold nothing last of all.
        wraps: Whether long texts continue on the next line.
        goes_below: Whether long texts stand below their row when the terminal is too narrow for all columns.
        is_optional: Whether it is left out, however wide the terminal is, when it holds nothing.
    """

    title: str
    justify: Literal["left", "right"] = "left"
    rank: int = 0
    wraps: bool = False
    goes_below: bool = False
    is_optional: bool = False


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout."""
    console = _make_console()
    widths = [_measure_column(column, [row[index] for row in rows]) for index, column in enumerate(columns)]
    everything = range(len(columns))
    below: Sequence[int] = ()
    if _measure_table(widths, everything) > console.width:
        below = [index for index in everything if columns[index].goes_below]
    beside = [index for index in everything if index not in below]
    empty = {index for index in beside if all(row[index] in ("", NOTHING) for row in rows)}
    beside = [index for index in beside if not (index in empty and columns[index].is_optional)]
    shown = _choose_columns(columns, widths, beside, empty, console.width)
    if below:
        _print_with_texts_below(columns, rows, shown, below, console.width)
    elif _is_simple(rows, shown, console) or _is_cramped(columns, widths, shown, console.width):
        click.echo("\n".join(_draw_lines([columns[index] for index in shown], rows, shown)))
    else:
        _print(console, _build_table(columns, rows, shown))
    hidden = [columns[index].title for index in beside if index not in shown and index not in empty]
    if hidden:
        note = f"  not shown here: {', '.join(hidden)} (widen the terminal, or use --json)"
        click.secho(fit_prose(note, sys.stdout, hanging=""), dim=True)


def _choose_columns(
    columns: Sequence[Column],
    widths: Sequence[int],
    candidates: Sequence[int],
    empty: Collection[int],
    width: int,
) -> list[int]:
    """Return which columns are shown: as many as fit, the most important first."""
    shown = [index for index in candidates if columns[index].rank == 0]
    for index in sorted(candidates, key=lambda index: (index in empty, columns[index].rank)):
        if index not in shown and _measure_table(widths, [*shown, index]) <= width:
            shown.append(index)
    return sorted(shown)


def _print_with_texts_below(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    shown: Sequence[int],
    below: Sequence[int],
    width: int,
) -> None:
    flat = [[" ".join(cell.split("\n")) for cell in row] for row in rows]
    head, rule, *lines = _draw_lines([columns[index] for index in shown], flat, shown)
    click.secho(head, bold=True)
    click.echo(rule)
    for line, row in zip(lines, rows, strict=True):
        click.echo(line)
        for index in below:
            if row[index] not in ("", NOTHING):
                click.echo(wrap_prose(f"    {clean_text(row[index])}", width, hanging=""))


def _is_cramped(columns: Sequence[Column], widths: Sequence[int], shown: Sequence[int], width: int) -> bool:
    """Return whether a name would be cut: the terminal breaks the line instead, and nothing is lost."""
    return not any(columns[index].wraps for index in shown) and _measure_table(widths, shown) > width


def print_rows(columns: Sequence[Column], widths: Sequence[int], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose rows are shown as they come.

    Args:
        columns: Its columns; all are shown.
        widths: How wide a column is at least; a title may make it wider, a longer cell stands out.
        rows: The rows.
    """
    widths = [max(width, cell_len(column.title)) for column, width in zip(columns, widths, strict=True)]

    def draw(cells: Sequence[str]) -> str:
        return (" " * _GAP).join(map(_justify, columns, map(clean_text, cells), widths)).rstrip()

    click.secho(draw([column.title for column in columns]), bold=True)
    click.echo("─" * (sum(widths) + _GAP * (len(widths) - 1)))
    for row in rows:
        click.echo(draw(row))


def print_fields(fields: Mapping[str, str]) -> None:
    """Print names and values in two aligned columns, without the fields that are empty."""
    indent = max(len(name) for name, value in fields.items() if value) + 2
    width = find_width(sys.stdout)
    for name, value in fields.items():
        if value:
            click.secho(name.ljust(indent), bold=True, nl=False)
            # A path that is longer than a line stays whole: one that is cut in two cannot be copied.
            lines = (
                clean_text(value)
                if width is None
                else wrap_prose(clean_text(value), width - indent, hanging="")
            )
            print_line(lines.replace("\n", "\n" + " " * indent))


def print_heading(text: str) -> None:
    """Print a line in bold, with an empty one before it."""
    click.echo()
    click.secho(clean_text(text), bold=True)


def print_bullets(lines: Iterable[str]) -> None:
    """Print a list of sentences."""
    for line in lines:
        print_prose(f"  - {line}")


def format_time(moment: datetime) -> str:
    """Return a moment in local time, to the minute."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def format_figure(value: float) -> str:
    """Return a metric's value with three decimals, or in powers of ten when it is very large or small."""
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"


def _measure_column(column: Column, cells: Sequence[str]) -> int:
    widest = max(cell_len(text) for text in (column.title, *cells))
    return min(widest, _LEAST_WRAPPED) if column.wraps else widest


def _measure_table(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[index] for index in shown) + _GAP * (len(shown) - 1)


def _is_simple(rows: Sequence[Sequence[str]], shown: Sequence[int], console: Console) -> bool:
    """Return whether a table takes neither colour nor a cell of several lines."""
    is_pipe = console.width == _PIPE_WIDTH and not console.is_terminal
    return is_pipe and not any("\n" in row[index] for row in rows for index in shown)


def _draw_lines(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], shown: Sequence[int]
) -> Iterator[str]:
    """Yield the lines that rich draws, which takes it a second for a thousand rows of twelve columns."""
    titles = [column.title for column in columns]
    texts = [titles, *([clean_text(row[index]) for index in shown] for row in rows)]
    widths = [max(map(cell_len, cells)) for cells in zip(*texts, strict=True)]
    for number, line in enumerate(texts):
        cells = map(_justify, columns, line, widths)
        yield (" " * _GAP).join(cells).rstrip()
        if number == 0:
            yield "─" * (sum(widths) + _GAP * (len(widths) - 1))


def _justify(column: Column, text: str, width: int) -> str:
    if column.justify == "right":
        text = text.rstrip()
        return " " * (width - cell_len(text)) + text
    return text + " " * (width - cell_len(text))


def _make_console() -> Console:
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


def _build_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], shown: Sequence[int]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for index in shown:
        column = columns[index]
        table.add_column(column.title, justify=column.justify, no_wrap=not column.wraps, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean_text(row[index])) for index in shown))
    return table


def _print(console: Console, table: Table) -> None:
    # Captured first, so that click's echo handles a closed pipe, as for every other line.
    with console.capture() as capture:
        console.print(table)
    lines = capture.get().splitlines()
    click.echo("\n".join(line.rstrip() for line in lines))
