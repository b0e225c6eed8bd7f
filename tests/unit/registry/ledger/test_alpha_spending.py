"""How sure a gain must be after others have tried, and who counts as having tried."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorry_registry.ledger.alpha_spending import (
    CHALLENGE_DETAIL,
    Challenge,
    count_challengers,
    tighten_confidence,
)
from lorry_registry.ledger.events import Action, Event

ROWS, OTHER_ROWS = ("sha256:" + letter * 64 for letter in "ab")


def adapter(number: int) -> str:
    return f"sha256:{number:064x}"


def enter(
    number: int, champion: int | None = 1, rows: str = ROWS, action: Action = "register", **details: Any
) -> Event:
    if champion is not None:
        details[CHALLENGE_DETAIL] = Challenge(champion, rows, lambda _: (True, ())).describe()
    return Event(
        sequence=number,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        by="ann",
        action=action,
        version=number,
        adapter_id=adapter(number),
        champion_before=1,
        champion_after=1,
        reasons=(),
        details=details,
        previous=None,
        task="reviews",
        registry="0" * 32,
    )


def test_each_adapter_that_challenged_the_same_champion_on_the_same_rows_counts_once() -> None:
    events = [
        enter(1, None),
        enter(2),
        enter(3, rows=OTHER_ROWS),
        enter(4, champion=2),
        enter(5),
        enter(5, action="judge"),
        enter(6, None, challenge="a word", more=3),
    ]
    assert count_challengers(events, 1, ROWS) == 2
    assert count_challengers(events, 1, OTHER_ROWS) == 1
    assert count_challengers(events, 2, ROWS) == 1
    assert count_challengers(events, 3, ROWS) == 0
    assert count_challengers([], 1, ROWS) == 0


def test_who_is_judged_anew_is_judged_as_when_it_came() -> None:
    events = [enter(2), enter(3), enter(4)]
    assert [count_challengers(events, 1, ROWS, besides=adapter(number)) for number in (2, 3, 4, 5)] == [
        *(0, 1, 2, 3)
    ]


@given(st.floats(0.5, 0.999), st.integers(0, 1000))
def test_later_challenges_need_more_and_never_certainty(confidence: float, earlier: int) -> None:
    needed = tighten_confidence(confidence, earlier)
    assert confidence < needed < tighten_confidence(confidence, earlier + 1) < 1.0


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_all_challenges_together_may_err_no_more_than_the_task_allows(confidence: float) -> None:
    spent = [1.0 - tighten_confidence(confidence, earlier) for earlier in range(20_000)]
    assert sum(spent) < 1.0 - confidence
    assert sum(spent) == pytest.approx(1.0 - confidence, rel=1e-4)


def test_of_twenty_independent_challengers_one_wins_by_luck_in_one_case_of_twenty() -> None:
    # Independence is the worst case but for challengers that exclude each other.
    chances = np.random.default_rng(0).random((20_000, 20))
    needed = np.asarray([tighten_confidence(0.95, earlier) for earlier in range(20)])
    rate = float((chances > needed).any(axis=1).mean())
    assert 0.04 < rate < 0.05
    untightened = float((chances > 0.95).any(axis=1).mean())
    assert untightened > 0.6
