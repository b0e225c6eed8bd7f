"""Retries: how often, for how long, and after which pauses.

The pauses are random, so that clients that failed together do not come back together.
"""

import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and at what intervals, something is tried again.

    Attributes:
        attempts: How often it is tried at most; None: without a limit.
        seconds: No attempt begins later than this after the first one; None: without a limit.
        first_seconds: The longest pause before the second attempt; each later one may be twice as long.
        longest_seconds: No pause is longer.
        jitter: The random share of each pause: 0: none, 1: all of it.
    """

    attempts: int | None = None
    seconds: float | None = None
    first_seconds: float = 1.0
    longest_seconds: float = 60.0
    jitter: float = 0.5

    def choose_pause(self, attempt: int) -> float:
        """Return the seconds to wait after an attempt, counted from 1."""
        # An exponent that no float holds would raise; the limit is reached long before.
        longest = min(self.longest_seconds, self.first_seconds * 2.0 ** min(attempt - 1, 60))
        # Not from the generator that a training in this process has seeded: it would end with other weights.
        return random.SystemRandom().uniform(longest * (1 - self.jitter), longest)

    def call(
        self,
        action: Callable[[], _T],
        retry_if: Callable[[Exception], bool],
        *,
        report: Callable[[Exception], None] = lambda _: None,
    ) -> _T:
        """Call an action until it succeeds, fails for good, or a limit is reached.

        Args:
            action: What is tried.
            retry_if: Whether another attempt may succeed after an error.
            report: Called with each error after which another attempt follows.

        Raises:
            Exception: That of the last attempt.
        """
        until = None if self.seconds is None else time.monotonic() + self.seconds
        for attempt in itertools.count(1):
            try:
                return action()
            except Exception as error:
                pause = self.choose_pause(attempt)
                is_last = attempt == self.attempts or (until is not None and time.monotonic() + pause > until)
                if is_last or not retry_if(error):
                    raise
                report(error)
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")
