import logging
from collections.abc import Callable

import pytest

from lorry_registry.errors import LorryError, TrackingError
from lorry_registry.mlflow.best_effort import BestEffort


def fail_with(error: BaseException, calls: list[str]) -> Callable[[], None]:
    def call() -> None:
        calls.append("failing")
        raise error

    return call


def test_calls_are_made_until_one_fails() -> None:
    calls: list[str] = []
    warnings: list[str] = []
    mlflow = BestEffort("MLflow does not show it", warnings.append)
    mlflow.attempt(lambda: calls.append("first"))
    mlflow.attempt(fail_with(TrackingError("it is down", where="mlflow", todo="start it"), calls))
    mlflow.attempt(lambda: calls.append("third"))
    mlflow.attempt(fail_with(LorryError("down again"), calls))
    assert calls == ["first", "failing"]
    assert warnings == ["MLflow does not show it: mlflow: it is down\n  -> start it"]


def test_a_warning_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        BestEffort("MLflow does not show 50%d of it").attempt(fail_with(TrackingError("it is %s"), []))
    assert [record.getMessage() for record in caplog.records] == ["MLflow does not show 50%d of it: it is %s"]


@pytest.mark.parametrize("error", [KeyError("a defect"), KeyboardInterrupt()])
def test_what_is_no_failure_of_mlflow_is_raised(error: BaseException) -> None:
    warnings: list[str] = []
    with pytest.raises(type(error)):
        BestEffort("MLflow does not show it", warnings.append).attempt(fail_with(error, []))
    assert not warnings
