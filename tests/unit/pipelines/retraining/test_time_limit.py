"""A time limit: what is begun with, what is left, and when a run is ended."""

import time

import pytest

from lorry_pipelines.retraining.time_limit import Deadline, TimeLimitError, choose_within

TASKS = ["long", "new", "short", "middle"]
SECONDS = {"long": 600.0, "short": 60.0, "middle": 120.0, "new": None}


def choose(**limits: float | int | None) -> tuple[list[str], dict[str, str]]:
    return choose_within(TASKS, SECONDS, **{"time_limit": None, "most": None} | limits)  # type: ignore[arg-type]


def test_without_a_limit_all_are_chosen_in_their_order() -> None:
    assert choose() == (TASKS, {})


def test_the_shortest_come_first_two_side_by_side() -> None:
    # 60 and 120 side by side, then 600 behind the 60.
    assert choose(time_limit=600.0)[0] == ["new", "short", "middle"]
    assert choose(time_limit=660.0)[0] == TASKS
    chosen, left = choose(time_limit=100.0)
    assert chosen == ["new", "short"]
    assert left["middle"] == "it took 2.0 min before, and the time limit leaves 1.7 min"
    assert list(left) == ["long", "middle"]


def test_of_an_unknown_time_as_many_begin_as_there_is_time_for() -> None:
    chosen, left = choose_within(["a", "b"], {"a": None, "b": None}, time_limit=1.0, most=None)
    assert (chosen, left) == (["a", "b"], {})


def test_no_more_tasks_than_were_asked_for() -> None:
    chosen, left = choose(most=1)
    assert chosen == ["short"]
    assert set(left.values()) == {"no more than 1 task was asked for"}


def test_what_was_asked_for_comes_first() -> None:
    chosen, _ = choose_within(TASKS, SECONDS, time_limit=None, most=2, first=["long", "elsewhere"])
    assert chosen == ["long", "short"]
    assert choose_within(TASKS, SECONDS, time_limit=None, most=1, first=["new", "long"])[0] == ["long"]


def test_the_end_is_told_once() -> None:
    Deadline(None)()
    Deadline(60.0)()
    deadline = Deadline(0.001)
    time.sleep(0.01)
    with pytest.raises(TimeLimitError):
        deadline()
    # The run is being ended, and looked at once more.
    deadline()
