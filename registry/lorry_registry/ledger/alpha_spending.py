"""The confidence asked of a gain when others were judged before on the same test rows.

Who tries often enough wins by luck: of ten adapters that are just as good as the champion, one or more would
pass a test at 95 % in every fourth case. So the 5 % are spent over all challenges of one champion on one set
of test rows: the k-th may err with 6 / (pi k)^2 of them, which sums to the whole however many there will be.
That is alpha spending, as Foster and Stine 2008 (https://doi.org/10.1111/j.1467-9868.2007.00643.x) have it
for tests that come one after the other. Holm's method needs all results before it decides on the first, and
here each challenge is decided when it comes.

A task without a champion has its first one judged in the same way, by its gain over a trivial baseline.

The ledger counts: each version's event names the champion and the test rows that it was judged by.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from lorry_registry.ledger.events import Event

CHALLENGE_DETAIL = "challenge"
"""The key in an event's details."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """That a version was judged by a test that others may have tried before.

    Attributes:
        champion: The champion's version; None: there was none, and a trivial baseline was to be beaten.
        test_rows: The digest of the test rows.
        judge: Returns whether it passes, and why, when so many others were judged by that champion and these
            rows; with more others it never passes more easily.
    """

    champion: int | None
    test_rows: str
    judge: Callable[[int], tuple[bool, tuple[str, ...]]]

    def describe(self) -> dict[str, JsonValue]:
        """Return what the event of the version says of it."""
        return {"champion": self.champion, "test_rows": self.test_rows}


def count_challengers(
    events: Sequence[Event], champion: int | None, test_rows: str, *, besides: str = ""
) -> int:
    """Return how many adapters have challenged a champion on some test rows.

    Args:
        events: The task's history.
        champion: The champion's version; None: those that were judged while there was none.
        test_rows: The digest of the test rows.
        besides: The adapter that is judged: neither it nor those that came after it count.
    """
    challengers: set[str] = set()
    for event in events:
        detail = event.details.get(CHALLENGE_DETAIL)
        if not isinstance(detail, dict):
            continue
        if (detail.get("champion"), detail.get("test_rows")) != (champion, test_rows):
            continue
        if event.adapter_id == besides:
            break
        challengers.add(event.adapter_id)
    return len(challengers)


def find_judge(event: Event) -> int | None:
    """Return the champion that an event's version was judged by; None: there was none."""
    detail = event.details.get(CHALLENGE_DETAIL)
    champion = detail.get("champion") if isinstance(detail, dict) else event.champion_before
    return champion if isinstance(champion, int) else None


def tighten_confidence(confidence: float, earlier: int) -> float:
    """Return the confidence that a challenge needs after so many earlier ones.

    Args:
        confidence: That of the task, for all challenges together.
        earlier: How many adapters were judged by the same champion and the same test rows before.
    """
    share = 6.0 / (math.pi * (earlier + 1)) ** 2
    return 1.0 - (1.0 - confidence) * share
