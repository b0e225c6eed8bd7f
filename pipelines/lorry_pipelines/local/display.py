"""The progress of a run: live bars on a terminal, one line for each change elsewhere."""

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from lorry_components.progress import CONTINUING, format_seconds
from lorry_components.steps.runtime.outcomes import STEPS, Outcome, RunRecord
from lorry_registry.cli.prose import is_live
from lorry_registry.errors import StoreError

_LOGGER = logging.getLogger(__name__)
WAITING = "waiting"
_LINE_SECONDS = 30.0
_BAR_WIDTH = 20
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

    def show(self, task: str, state: "TaskState") -> None:
        """Show the progress of a task."""


@dataclass(frozen=True, slots=True)
class TaskState:
    """How far a task is.

    Attributes:
        share: The share that is done.
        label: What it is doing, or how it ended.
        detail: How far the step is: ``step 100 of 249, loss 0.231, 40 s left``.
        has_ended: Whether nothing more comes.
    """

    share: float
    label: str
    detail: str = ""
    has_ended: bool = False

    @property
    def is_running(self) -> bool:
        """Whether a step of it runs, or has run and the next is awaited."""
        return not self.has_ended and self.label != WAITING


Beat = tuple[str, int, int, str]
"""How far a step is: its name, what is done, of how much, and a note."""


def read_progress_file(folder: Path, task: str) -> Beat | None:
    """Return how far a task's step is, as it wrote into a folder of this machine."""
    try:
        document = json.loads((folder / f"{task}.json").read_text("utf-8"))
    except FileNotFoundError:
        return None
    return document["step"], document["done"], document["total"], document["note"]


def read_stored_progress(record: RunRecord, task: str) -> Beat | None:
    """Return how far a task's step in a pod is, as it wrote into the store, and for how long it runs."""
    beat = record.read_heartbeat(task)
    if beat is None:
        return None
    running = f"for {format_seconds((datetime.now(UTC) - beat.started_at).total_seconds())}"
    return beat.step, beat.done, beat.total, ", ".join(part for part in (beat.note, running) if part)


class Watcher:
    """Reads what the steps of a run write about themselves, and shows it.

    Args:
        tasks: The run's tasks.
        record: The outcomes of the run's steps.
        read_progress: Returns how far a task's step is; None: it is not known.
        shown: Shows the progress.
        seconds: From one look at the store to the next.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        record: RunRecord,
        read_progress: Callable[[str], Beat | None],
        shown: TaskProgress,
        *,
        seconds: float = 0.0,
    ) -> None:
        self._tasks = tasks
        self._record = record
        self._read_progress = read_progress
        self._shown = shown
        self._seconds = seconds
        self._looked: float | None = None
        self._outcomes: dict[str, list[Outcome]] = {}
        self._ended: set[str] = set()

    def __call__(self, *, at_once: bool = False) -> None:
        """Look once at all tasks that have not ended, unless the last look was just now."""
        now = time.monotonic()
        if not at_once and self._looked is not None and now - self._looked < self._seconds:
            return
        self._looked = now
        for task in self._tasks:
            if task in self._ended:
                continue
            try:
                outcomes = self._record.read_from(task, self._outcomes.get(task, ()))
                state = self._describe(task, outcomes)
            except StoreError as error:
                # The steps need the store, and report it when it stays away. A display ends no run.
                _LOGGER.warning("the progress of %s cannot be read: %s", task, error)
                continue
            self._outcomes[task] = outcomes
            if state.has_ended:
                self._ended.add(task)
            self._shown.show(task, state)

    def _describe(self, task: str, outcomes: Sequence[Outcome]) -> TaskState:
        last = outcomes[-1] if outcomes else None
        if last is not None and (last.status != "done" or last.step == STEPS[-1]):
            return TaskState(1.0, _name_end(last), has_ended=True)
        done = sum(_SHARES[outcome.step] for outcome in outcomes)
        beat = self._read_progress(task)
        if beat is None:
            return TaskState(done, WAITING if last is None else _NAMES[last.step])
        step, count, total, note = beat
        if any(outcome.step == step for outcome in outcomes):
            # The next step has not begun.
            return TaskState(done, _NAMES[step])
        share = _SHARES[step] * (count / total if total else 0.0)
        first, _, rest = note.partition(", ")
        is_continuing = first.startswith(CONTINUING)
        label = f"{_NAMES[step]}, {first}" if is_continuing else _NAMES[step]
        counted = f"{'step' if step == 'finetune' else 'row'} {count:,} of {total:,}" if total else ""
        detail = ", ".join(part for part in (counted, rest if is_continuing else note) if part)
        return TaskState(done + share, label, detail)


def _name_end(last: Outcome) -> str:
    if last.status == "failed":
        return f"failed in {last.step}"
    if last.status == "current":
        return "refused before" if last.details.get("refused") else "up to date"
    kept = "unchanged" if last.details.get("known") else "registered, not promoted"
    return "promoted" if last.details.get("promoted") else kept


class _Bars(Progress):
    """Bars, and a line below them."""

    summary = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bars that are visible, and the line if there is one."""
        yield from super().get_renderables()
        if self.summary:
            yield Text(self.summary, style="dim")


class BarDisplay:
    """Bars on a terminal: of all tasks where they fit, else of those that run, and a count of the others."""

    def __init__(self, progress: _Bars, tasks: Sequence[str]) -> None:
        self._progress = progress
        self._fits = len(tasks) < progress.console.height
        self._states = {task: TaskState(0.0, WAITING) for task in tasks}
        self._ids: dict[str, TaskID] = {
            task: progress.add_task(task, total=1.0, label=WAITING, visible=self._fits) for task in tasks
        }

    def show(self, task: str, state: TaskState) -> None:
        """Move a bar; of the details it has the loss, or for how long a step runs."""
        self._states[task] = state
        parts = [part for part in state.detail.split(", ") if part.startswith(("loss ", "for "))]
        label = ", ".join([state.label, *parts[:1]])
        self._progress.update(
            self._ids[task], completed=state.share, label=label, visible=self._fits or state.is_running
        )
        if not self._fits:
            others = Counter(each.label for each in self._states.values() if not each.is_running)
            self._progress.summary = ", ".join(f"{count} {label}" for label, count in others.items())


class LineDisplay:
    """A line for each change, and one each 30 s for a step that goes on; for logs.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._labels: dict[str, set[str]] = {}
        self._printed: dict[str, float] = {}

    def show(self, task: str, state: TaskState) -> None:
        """Print a line when a task's label changes, or when it runs on and none was printed for a while."""
        now, known = self._clock(), self._labels.setdefault(task, {WAITING})
        is_new = state.label not in known
        is_due = state.is_running and state.detail and now - self._printed.get(task, now) >= _LINE_SECONDS
        if not is_new and not is_due:
            return
        known.add(state.label)
        self._printed[task] = now
        detail = f", {state.detail}" if state.detail and not is_new else ""
        print(f"{now - self._started:6.1f} s  {task}: {state.label}{detail}", file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def open_display(tasks: Sequence[str], *, quiet: bool) -> Iterator[TaskProgress]:
    """Open the display for a terminal or for a log; it writes to stderr.

    Args:
        tasks: The tasks, in the order in which they are listed.
        quiet: Whether nothing is shown.
    """
    if quiet:
        yield _NoDisplay()
    elif is_live(sys.stderr):
        columns = (
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=_BAR_WIDTH),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[label]}", style="cyan"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with _Bars(*columns, console=Console(stderr=True)) as progress:
            yield BarDisplay(progress, tasks)
    else:
        yield LineDisplay()


class _NoDisplay:
    def show(self, task: str, state: TaskState) -> None:
        """Show nothing."""
