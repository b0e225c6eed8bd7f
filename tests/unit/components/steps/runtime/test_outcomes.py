"""What a step leaves for the run's report."""

import errno
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import JsonValue, ValidationError

from lorry_components.steps.runtime.outcomes import (
    PROCEED,
    STEPS,
    STOP,
    Nothing,
    Outcome,
    RunRecord,
    run_step,
)
from lorry_registry.errors import (
    ConflictError,
    InvalidDataError,
    LorryError,
    StoreError,
    TrackingError,
    TrainingError,
)
from lorry_registry.stores import LocalStore

Body = Callable[[], dict[str, JsonValue]]


@pytest.fixture
def record(store: LocalStore) -> RunRecord:
    return RunRecord(store, "run-1")


def must_not_run() -> dict[str, JsonValue]:
    raise AssertionError("the step ran")


def fail_with(error: BaseException) -> Body:
    def body() -> dict[str, JsonValue]:
        raise error

    return body


def test_a_step_that_is_done_lets_the_next_one_go_on(record: RunRecord) -> None:
    assert run_step(record, "reviews", "prepare_data", lambda: {"rows": 7}) == PROCEED
    assert run_step(record, "reviews", "finetune", lambda: {}) == PROCEED
    first, second = record.read("reviews")
    assert (first.step, first.status, first.details, first.failure) == (
        "prepare_data",
        "done",
        {"rows": 7},
        None,
    )
    assert first.seconds >= 0
    assert first.started_at <= second.started_at <= datetime.now(UTC)
    assert not record.has_stopped("reviews", "register")


def test_a_failed_step_can_be_tried_again(record: RunRecord) -> None:
    def fail() -> dict[str, Any]:
        raise TrainingError("the disk was full", where="reviews", todo="make room")

    assert run_step(record, "reviews", "prepare_data", dict) == PROCEED
    assert run_step(record, "reviews", "finetune", fail) == STOP
    assert run_step(record, "reviews", "evaluate", dict) == STOP
    assert run_step(record, "reviews", "finetune", dict) == PROCEED
    assert run_step(record, "reviews", "evaluate", dict) == PROCEED
    assert [outcome.status for outcome in record.read("reviews")] == ["done", "done", "done"]


def test_after_a_failed_step_the_later_ones_do_nothing(record: RunRecord) -> None:
    error = TrainingError("the loss became nan", where="reviews", todo="lower it")
    assert run_step(record, "reviews", "prepare_data", dict) == PROCEED
    assert run_step(record, "reviews", "finetune", fail_with(error)) == STOP
    for step in STEPS[2:]:
        assert run_step(record, "reviews", step, must_not_run) == STOP
    outcomes = record.read("reviews")
    assert [outcome.step for outcome in outcomes] == ["prepare_data", "finetune"]
    failure = outcomes[-1].failure
    assert failure is not None
    assert (failure.error, failure.exit_code) == ("TrainingError", TrainingError.exit_code)
    assert failure.message == "reviews: the loss became nan\n  -> lower it"
    assert failure.trace == ""


def test_a_failed_task_does_not_take_another_one_down(record: RunRecord) -> None:
    run_step(record, "first", "prepare_data", fail_with(LorryError("no")))
    assert run_step(record, "second", "prepare_data", dict) == PROCEED
    assert record.list_tasks() == ["first", "second"]


def test_another_run_starts_afresh(store: LocalStore, record: RunRecord) -> None:
    run_step(record, "reviews", "prepare_data", fail_with(LorryError("no")))
    assert run_step(RunRecord(store, "run-2"), "reviews", "prepare_data", dict) == PROCEED


def test_the_outcomes_of_another_run_are_not_taken_over(store: LocalStore, record: RunRecord) -> None:
    record.claim()
    with pytest.raises(ConflictError, match="run-1 exists already") as refused:
        RunRecord(store, "run-1").claim()
    assert refused.value.where.endswith("runs/run-1")
    RunRecord(store, "run-2").claim()


def test_of_two_runs_that_claim_an_id_at_once_one_is_refused(
    store: LocalStore, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.claim()
    # The other looked before this one had written.
    monkeypatch.setattr(store, "list_children", lambda _: [])
    with pytest.raises(ConflictError, match="run-1 exists already"):
        RunRecord(store, "run-1").claim()


def test_a_task_that_is_up_to_date_stops_without_a_failure(record: RunRecord) -> None:
    body = fail_with(Nothing("v3 was trained from the same data"))
    assert run_step(record, "reviews", "prepare_data", body) == STOP
    assert run_step(record, "reviews", "finetune", must_not_run) == STOP
    (outcome,) = record.read("reviews")
    assert outcome.status == "current"
    assert outcome.details == {"reason": "v3 was trained from the same data"}
    assert outcome.failure is None


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(StoreError("full"), 9), (InvalidDataError("data.csv", []), 4), (LorryError("what"), 1)],
)
def test_a_failure_keeps_the_exit_code_of_its_error(
    record: RunRecord, error: LorryError, exit_code: int
) -> None:
    run_step(record, "reviews", "prepare_data", fail_with(error))
    failure = record.read("reviews")[0].failure
    assert failure is not None
    assert (failure.exit_code, failure.trace) == (exit_code, "")


def test_an_error_that_nobody_foresaw_comes_with_where_it_happened(
    record: RunRecord, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert run_step(record, "reviews", "evaluate", fail_with(KeyError("label"))) == STOP
    failure = record.read("reviews")[0].failure
    assert failure is not None
    assert failure.error == "KeyError"
    assert failure.message == "KeyError: 'label'"
    assert failure.exit_code == 1
    assert "test_outcomes.py" in failure.trace
    assert "reviews: evaluate failed" in caplog.text


def test_neither_the_log_nor_the_outcome_shows_a_secret(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    record = RunRecord(store, "run-1", secrets={"planted"})

    def body() -> dict[str, JsonValue]:
        try:
            raise OSError("https://me:hunter2@host is gone")
        except OSError as error:
            raise RuntimeError("with the key planted") from error

    def tell() -> dict[str, JsonValue]:
        raise TrackingError("https://me:hunter2@host is gone, planted", where="mlflow")

    run_step(record, "reviews", "evaluate", body)
    run_step(record, "films", "evaluate", tell)
    assert "https://***@host is gone" in caplog.text
    stored = "".join(path.read_text("utf-8") for path in store.root.rglob("*.json"))
    assert "with the key ***" in stored
    for secret in ("hunter2", "planted"):
        assert secret not in caplog.text + stored


def test_a_trace_is_not_endless(record: RunRecord) -> None:
    run_step(record, "reviews", "evaluate", fail_with(RuntimeError("x" * 100_000)))
    failure = record.read("reviews")[0].failure
    assert failure is not None
    assert len(failure.trace) <= 4000


def test_a_full_disk_is_told_as_one(record: RunRecord) -> None:
    run_step(record, "reviews", "finetune", fail_with(OSError(errno.ENOSPC, "No space left on device", "/x")))
    failure = record.read("reviews")[0].failure
    assert failure is not None
    assert failure.exit_code == StoreError.exit_code
    assert "No space left on device" in failure.message
    assert "-> check that the disk has space" in failure.message


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_a_step_that_is_interrupted_leaves_no_outcome(record: RunRecord, signal: type[BaseException]) -> None:
    with pytest.raises(signal):
        run_step(record, "reviews", "finetune", fail_with(signal()))
    assert record.read("reviews") == []


def test_outcomes_are_read_in_the_order_of_the_steps(record: RunRecord) -> None:
    for step in ("register", "gate", "prepare_data"):
        now = datetime.now(UTC)
        record.write(Outcome(task="reviews", step=step, status="done", started_at=now, seconds=1.0))
    assert [outcome.step for outcome in record.read("reviews")] == ["prepare_data", "gate", "register"]


def test_a_step_that_ran_again_replaces_its_outcome(record: RunRecord) -> None:
    for rows in (1, 2):
        run_step(record, "reviews", "prepare_data", lambda rows=rows: {"rows": rows})
    (outcome,) = record.read("reviews")
    assert outcome.details == {"rows": 2}


def test_an_outcome_that_this_version_does_not_know_is_refused(store: LocalStore, record: RunRecord) -> None:
    store.create("runs/run-1/tasks/reviews/gate.json", b'{"task": "reviews", "surprise": 1}')
    with pytest.raises(ValidationError):
        record.read("reviews")


def test_details_that_are_no_json_are_a_failure_of_the_step(record: RunRecord) -> None:
    def body() -> Any:
        return {"model": object()}

    assert run_step(record, "reviews", "finetune", body) == STOP
    failure = record.read("reviews")[0].failure
    assert failure is not None
    assert failure.error == "ValidationError"
