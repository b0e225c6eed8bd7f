"""The time limit of a retraining, and the tasks left for the next time."""

import math
import time
from collections.abc import Collection, Mapping, Sequence

_TASKS_AT_A_TIME = 2


class TimeLimitError(Exception):
    """The time of a retraining is over: its runner ends the run, whose checkpoints are kept."""


class Deadline:
    """The end of a time limit; raises once, when it is over.

    Args:
        seconds: From now on; None: there is none.
    """

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def __call__(self) -> None:
        """Raise if the time limit is reached; not again after that, for the run is being ended.

        Raises:
            TimeLimitError: It is.
        """
        if self._end is not None and time.monotonic() > self._end:
            self._end = None
            raise TimeLimitError


def choose_within(
    tasks: Sequence[str],
    expected: Mapping[str, float | None],
    *,
    time_limit: float | None,
    most: int | None,
    first: Collection[str] = (),
) -> tuple[list[str], dict[str, str]]:
    """Return the tasks that a retraining begins with, and why others are left for the next time.

    Those that were asked for come first, then those whose time is known, the shortest first, so that as many
    as can be are done; they count side by side, two at a time. How long the others take is not known: they
    begin if there is any time left, and the time limit ends them.

    Args:
        tasks: The tasks that are stale, in their order.
        expected: Task -> the seconds that it took before; None: not known.
        time_limit: Seconds; None: any.
        most: How many tasks; None: any.
        first: The tasks that were asked for.
    """

    def rank(task: str) -> tuple[bool, float]:
        seconds = expected.get(task)
        return task not in first, math.inf if seconds is None else seconds

    chosen: list[str] = []
    left: dict[str, str] = {}
    lanes = [0.0] * _TASKS_AT_A_TIME
    for task in sorted(tasks, key=rank):
        seconds = expected.get(task)
        end = min(lanes) + (seconds or 0.0)
        if most is not None and len(chosen) >= most:
            left[task] = f"no more than {most} task{' was' if most == 1 else 's were'} asked for"
        elif time_limit is not None and (end > time_limit or (seconds is None and min(lanes) >= time_limit)):
            took = f"it took {seconds / 60:.1f} min before, and " if seconds is not None else ""
            left[task] = f"{took}the time limit leaves {max(0.0, time_limit - min(lanes)) / 60:.1f} min"
        else:
            lanes[lanes.index(min(lanes))] = end
            chosen.append(task)
    return [task for task in tasks if task in chosen], {task: left[task] for task in tasks if task in left}
