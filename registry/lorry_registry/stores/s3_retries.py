"""Sending again what may succeed a moment later.

The pauses are random, so that clients that failed together do not come back together.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from lorry_registry.stores.s3_errors import is_transient

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often, and at what intervals, a request is sent again.

    Attributes:
        attempts: How often it is sent at most.
        first_seconds: The longest pause before the second attempt; each later one may be twice as long.
        longest_seconds: No pause is longer.
    """

    attempts: int = 7
    first_seconds: float = 0.2
    longest_seconds: float = 5.0

    def choose_pause(self, attempt: int) -> float:
        """Return the seconds to wait after an attempt, counted from 1."""
        longest = min(self.longest_seconds, self.first_seconds * 2.0 ** (attempt - 1))
        # Not from the generator that a training in this process has seeded: it would end with other weights.
        return random.SystemRandom().uniform(longest / 2, longest)


def retry_request(request: Callable[[], _T], patience: Patience) -> _T:
    """Send a request until it succeeds, fails for good, or patience ends.

    Raises:
        Exception: That of the last attempt.
    """
    for attempt in range(1, patience.attempts):
        try:
            return request()
        except Exception as error:
            if not is_transient(error):
                raise
        time.sleep(patience.choose_pause(attempt))
    return request()
