"""The progress of a step in a pod: lines in its log, and a heartbeat in the store.

Both are news, not results: nothing fails because one of them could not be written.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from lorry_components.steps.runtime.outcomes import Heartbeat, RunRecord
from lorry_registry.errors import StoreError

_LOGGER = logging.getLogger(__name__)
_LOG_SECONDS = 30.0
_STORE_SECONDS = 10.0


class StepProgress:
    """Tells how far a step is, by the clock: each 30 s in the log, each 10 s in the store.

    Args:
        record: The run's record.
        task: The task.
        step: The step.
        clock: Returns seconds.
    """

    def __init__(
        self, record: RunRecord, task: str, step: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._record = record
        self._task = task
        self._step = step
        self._clock = clock
        self._started_at = datetime.now(UTC)
        self._logged = clock()
        self._stored: float | None = None
        self._is_stored = True

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Take note of what is done; the first call marks the step's start."""
        now = self._clock()
        if self._is_stored and (self._stored is None or now - self._stored >= _STORE_SECONDS):
            self._stored = now
            self._store(done, total, note)
        if now - self._logged >= _LOG_SECONDS:
            self._logged = now
            _LOGGER.info("%s: %s, %s", self._task, self._step, describe_position(done, total, note))

    def _store(self, done: int, total: int, note: str) -> None:
        beat = Heartbeat(step=self._step, done=done, total=total, note=note, started_at=self._started_at)
        try:
            self._record.write_heartbeat(self._task, beat)
        except StoreError as error:
            # A store that does not answer costs time at each attempt; the outcome says what is wrong with it.
            self._is_stored = False
            _LOGGER.warning("%s: how far %s is will not be seen: %s", self._task, self._step, error)


def describe_position(done: int, total: int, note: str) -> str:
    """Return ``100 of 249, loss 0.231``."""
    return ", ".join(part for part in (f"{done:,} of {total:,}" if total else "", note) if part)
