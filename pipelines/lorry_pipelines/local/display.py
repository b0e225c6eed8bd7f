"""The progress of a run: live bars on a terminal, one line for each change elsewhere."""

import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lorry_components.steps.runtime.outcomes import STEPS, Outcome, RunRecord
from lorry_registry.cli.prose import is_live
from lorry_registry.errors import StoreError
from lorry_registry.stores import Store

_LOGGER = logging.getLogger(__name__)
# Each step's share of a task's time, measured on the demo, for one bar over all steps.
_SHARES = {"prepare_data": 0.04, "finetune": 0.82, "evaluate": 0.10, "gate": 0.01, "register": 0.03}
_NAMES = {
    "prepare_data": "preparing data",
    "finetune": "fine-tuning",
    "evaluate": "evaluating",
    "gate": "judging",
    "register": "registering",
}


class TaskProgress(Protocol):
    """Shows tasks."""

    def show(self, task: str, *, share: float, label: str) -> None:
        """Show the progress of a task: the share that is done, and what it is doing."""


class Watcher:
    """Reads what the steps of a run write about themselves, and shows it.

    Args:
        tasks: The run's tasks.
        store: Where outcomes are kept.
        run: The run's id.
        progress: The folder of progress files.
        shown: Shows the progress.
    """

    def __init__(
        self, tasks: Sequence[str], store: Store, run: str, progress: Path, shown: TaskProgress
    ) -> None:
        self._tasks = tasks
        self._record = RunRecord(store, run)
        self._progress = progress
        self._shown = shown
        self._ended: set[str] = set()

    def __call__(self) -> None:
        """Look once at all tasks that have not ended."""
        for task in self._tasks:
            if task in self._ended:
                continue
            try:
                outcomes = self._record.read(task)
            except StoreError as error:
                # The steps need the store, and report it when it stays away. A display ends no run.
                _LOGGER.warning("the progress of %s cannot be read: %s", task, error)
                continue
            share, label = self._describe(task, outcomes)
            if outcomes and (outcomes[-1].status != "done" or outcomes[-1].step == STEPS[-1]):
                self._ended.add(task)
            self._shown.show(task, share=share, label=label)

    def _describe(self, task: str, outcomes: Sequence[Outcome]) -> tuple[float, str]:
        last = outcomes[-1] if outcomes else None
        if last is not None and last.status == "failed":
            return 1.0, f"failed in {last.step}"
        if last is not None and last.status == "current":
            return 1.0, "refused before" if last.details.get("refused") else "up to date"
        if last is not None and last.step == STEPS[-1]:
            kept = "unchanged" if last.details.get("known") else "registered, not promoted"
            return 1.0, "promoted" if last.details.get("promoted") else kept
        done = sum(_SHARES[outcome.step] for outcome in outcomes)
        present = self._read_progress(task)
        if present is None:
            return done, "waiting" if not outcomes else _NAMES[outcomes[-1].step]
        step, share = present
        if any(outcome.step == step for outcome in outcomes):
            return done, _NAMES[step]
        return done + _SHARES[step] * share, _NAMES[step]

    def _read_progress(self, task: str) -> tuple[str, float] | None:
        try:
            document = json.loads((self._progress / f"{task}.json").read_text("utf-8"))
        except FileNotFoundError:
            return None
        total = document["total"]
        return document["step"], document["done"] / total if total else 0.0


class BarDisplay:
    """Bars on a terminal."""

    def __init__(self, progress: Progress, tasks: Sequence[str]) -> None:
        self._progress = progress
        self._ids: dict[str, TaskID] = {
            task: progress.add_task(task, total=1.0, label="waiting") for task in tasks
        }

    def show(self, task: str, *, share: float, label: str) -> None:
        """Move a bar."""
        self._progress.update(self._ids[task], completed=share, label=label)


class LineDisplay:
    """A line for each change, for logs."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}
        self._started = time.monotonic()

    def show(self, task: str, *, share: float, label: str) -> None:
        """Print a line when a task's label changes."""
        if self._last.get(task) == label:
            return
        self._last[task] = label
        if label != "waiting":
            print(f"{time.monotonic() - self._started:6.1f} s  {task}: {label}", file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def open_display(tasks: Sequence[str], *, quiet: bool) -> Iterator[TaskProgress]:
    """Open the display for a terminal or for a log; it writes to stderr.

    Args:
        tasks: The tasks, in the order in which they are listed.
        quiet: Whether nothing is shown.
    """
    console = Console(stderr=True)
    if quiet:
        yield _NoDisplay()
    elif is_live(sys.stderr):
        columns = (
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[label]}", style="cyan"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            yield BarDisplay(progress, tasks)
    else:
        yield LineDisplay()


class _NoDisplay:
    def show(self, task: str, *, share: float, label: str) -> None:
        """Show nothing."""
