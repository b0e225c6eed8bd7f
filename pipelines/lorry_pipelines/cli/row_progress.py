"""The number of rows done, as a bar on a terminal."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TextIO

from lorry_registry.cli.prose import is_live


@contextlib.contextmanager
def show_rows(total: int, stream: TextIO, noun: str = "rows") -> Iterator[Callable[[int], None]]:
    """Yield what takes how many rows are done, and shows it if the stream is a terminal.

    Args:
        total: How many there are.
        stream: Where the bar is drawn; it is wiped out at the end.
        noun: What is counted.
    """
    if not is_live(stream):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(noun), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda done: progress.update(bar, completed=done)
