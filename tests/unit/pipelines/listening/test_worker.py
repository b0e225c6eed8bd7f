"""Requests are carried out one after the other, together where they came together, and after a restart."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lorry_pipelines.listening.events import Request
from lorry_pipelines.listening.requests import RequestLog
from lorry_pipelines.listening.worker import RetrainWorker
from lorry_registry.stores import LocalStore

FILES = {"reviews": "tasks/reviews.yaml", "films": "tasks/films.yaml"}
Start = Callable[..., RetrainWorker]

# Stands in for lorry retrain: it notes what it was called with, and ends as the next code says.
PROGRAM = """
import sys, pathlib, time
folder = pathlib.Path(sys.argv[1])
with (folder / "calls").open("a") as stream:
    stream.write(" ".join(sys.argv[2:]) + "\\n")
codes = (folder / "codes").read_text().split()
(folder / "codes").write_text(" ".join(codes[1:]))
if codes and codes[0] == "sleep":
    time.sleep(60)
sys.exit(int(codes[0]) if codes else 0)
"""


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def start(store: LocalStore, tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a worker whose retrainings end with some codes."""
    started: list[RetrainWorker] = []

    def begin(*codes: str) -> RetrainWorker:
        (tmp_path / "codes").write_text(" ".join(codes))
        worker = RetrainWorker(
            RequestLog(store), [sys.executable, "-c", PROGRAM, str(tmp_path)], FILES, seconds=0.05
        )
        started.append(worker)
        worker.start()
        return worker

    yield begin
    for worker in started:
        worker.stop()


def read_calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []


def test_what_came_together_is_one_retraining(start: Start, store: LocalStore, tmp_path: Path) -> None:
    log = RequestLog(store)
    for number, tasks in enumerate((("reviews",), ("films", "reviews"))):
        log.enter(Request(f"{number:032x}", "s3", tasks))
    # What a former process left is done as well: nobody wakes it.
    start()
    wait_until(lambda: log.list_pending() == [])
    assert read_calls(tmp_path) == ["tasks/films.yaml tasks/reviews.yaml"]


def test_what_is_asked_of_another_listeners_task_is_left_to_it(
    start: Start, store: LocalStore, tmp_path: Path
) -> None:
    log = RequestLog(store)
    log.enter(Request("a" * 32, "s3", ("others",)))
    log.enter(Request("b" * 32, "s3", ("reviews", "others")))
    start()
    wait_until(lambda: [request.id for request in log.list_pending()] == ["a" * 32])
    assert read_calls(tmp_path) == ["tasks/reviews.yaml"]


@pytest.mark.parametrize(("codes", "calls"), [(("9", "0"), 2), (("9", "9", "9"), 3), (("12",), 1)])
def test_what_cannot_be_done_now_is_tried_again_but_not_for_ever(
    start: Start, store: LocalStore, tmp_path: Path, codes: tuple[str, ...], calls: int
) -> None:
    log = RequestLog(store)
    log.enter(Request("a" * 32, "s3", ("reviews",)))
    start(*codes)
    wait_until(lambda: log.list_pending() == [])
    time.sleep(0.3)
    assert read_calls(tmp_path) == ["tasks/reviews.yaml"] * calls
    assert store.read(f"requests/{'a' * 32}/done.json").content == f'{{"code":{codes[-1]}}}'.encode()


def test_a_retraining_that_is_cut_off_stays_to_be_done(
    start: Start, store: LocalStore, tmp_path: Path
) -> None:
    log = RequestLog(store)
    worker = start("sleep")
    log.enter(Request("a" * 32, "s3", ("reviews",)))
    worker.wake()
    wait_until(lambda: read_calls(tmp_path) == ["tasks/reviews.yaml"])
    worker.stop()
    assert [request.id for request in log.list_pending()] == ["a" * 32]
