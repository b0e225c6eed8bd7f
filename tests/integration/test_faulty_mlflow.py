"""A real MLflow server behind a network that spoils requests: the ledger is the truth, MLflow follows."""

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lorry_components.steps.register.mlflow_publication import reconcile_task
from lorry_registry.errors import TrackingError
from lorry_registry.ledger.events import Event
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.registry import Registry

from fixtures.adapters import enroll, write_adapter
from fixtures.mlflow_server import MlflowServer, mlflow_server  # noqa: F401
from fixtures.s3_faults import FaultProxy

pytestmark = pytest.mark.exhaustive

Choose = Callable[[int, str, str], str]
_FAULTS = ("busy", "lose", "cut", "drop", "stall")
# MLflow's client takes whole seconds.
_TIMEOUT_SECONDS = 1
# Each of some hundred requests would take minutes: every so many, and another fault each time.
_STRIDE = 23


@pytest.fixture
def proxy(mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:  # noqa: F811
    """Stand between MLflow's client and its server; the client tries three times, without long pauses."""
    for name, value in {"MAX_RETRIES": 2, "BACKOFF_FACTOR": 0, "BACKOFF_JITTER": 0, "TIMEOUT": 1}.items():
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", str(value))
    faults = FaultProxy(mlflow_server)
    faults.stall_seconds = _TIMEOUT_SECONDS + 0.5
    faults.start()
    yield faults
    faults.stop()


class Window:
    """A task in the ledger that MLflow does not show yet, and MLflow through the proxy and without it."""

    def __init__(self, task: str, registry: Registry, proxy: FaultProxy, server: MlflowServer) -> None:
        self.task = task
        self.registry = registry
        self.proxy = proxy
        self.shaky = MlflowIndex(proxy.endpoint)
        self.steady = MlflowIndex(server.endpoint)
        self.history: list[Event] = registry.ledger.read_history(task)

    def reconcile(self, choose: Choose = lambda *_: "") -> tuple[TrackingError | None, int]:
        """Reconcile through the proxy; return the error, and how many requests there were."""
        self.proxy.requests.clear()
        self.proxy.choose_fault = choose
        try:
            reconcile_task(self.shaky, self.registry, self.task)
        except TrackingError as error:
            return error, len(self.proxy.requests)
        finally:
            self.proxy.choose_fault = lambda *_: ""
        return None, len(self.proxy.requests)

    def check(self) -> None:
        """Check that MLflow is right after a steady reconcile, and that another one has nothing to do."""
        reconcile_task(self.steady, self.registry, self.task)
        assert reconcile_task(self.steady, self.registry, self.task) == []
        versions = self.steady.list_model_versions(self.task)
        held = sorted(str(self.steady.identify_version(version)) for version in versions)
        assert held == sorted(version.adapter_id for version in self.registry.list_versions(self.task))
        champion = self.registry.resolve(self.task).adapter_id
        assert self.steady.read_aliases(self.task)["champion"] == champion
        assert self.registry.ledger.read_history(self.task) == self.history


@pytest.fixture
def open_window(
    registry: Registry,
    proxy: FaultProxy,
    mlflow_server: MlflowServer,  # noqa: F811
    tmp_path: Path,
) -> Callable[[], Window]:
    """Return a function that opens one on a new task with a champion and a challenger."""
    numbers = itertools.count()
    # One MLflow serves all tests of this module.
    prefix = f"t{abs(hash(tmp_path)) % 10**8}"

    def open_one() -> Window:
        task = f"{prefix}-{next(numbers)}"
        for seed in (1, 2):
            adapter = write_adapter(tmp_path / task / str(seed), task=task, seed=seed)
            enroll(registry, adapter, promote=seed == 1, reasons=("a test",))
        return Window(task, registry, proxy, mlflow_server)

    return open_one


def _spoil(fault: str, first: int, last: int = sys.maxsize) -> Choose:
    return lambda number, *_: fault if first <= number <= last else ""


def test_each_request_of_a_reconcile_may_be_spoiled_once(open_window: Callable[[], Window]) -> None:
    first = open_window()
    error, count = first.reconcile()
    assert error is None
    first.check()
    for turn, fatal in enumerate(range(1, count + 1, _STRIDE)):
        window = open_window()
        fault = _FAULTS[turn % len(_FAULTS)]
        # MLflow's own client sends most of it again, but not all: what it gives up on is a clear error.
        window.reconcile(_spoil(fault, fatal, fatal))
        window.check()


def test_a_server_that_goes_away_in_the_middle_is_a_clear_error(open_window: Callable[[], Window]) -> None:
    _, count = open_window().reconcile()
    for turn, fatal in enumerate(range(2, count, 2 * _STRIDE)):
        window = open_window()
        error, _ = window.reconcile(_spoil(("lose", "busy", "drop")[turn % 3], fatal))
        assert error is not None
        assert "check that MLFLOW_TRACKING_URI is right and that MLflow is up" in error.todo
        window.check()


@pytest.mark.parametrize("path", ["model-versions/create", "registered-models/create", "alias"])
def test_a_lost_answer_makes_nothing_twice(open_window: Callable[[], Window], path: str) -> None:
    window = open_window()
    lost: list[str] = []

    def choose(_: int, method: str, asked: str) -> str:
        if method == "GET" or path not in asked or len(lost) == 2:
            return ""
        lost.append(asked)
        return "lose"

    error, _ = window.reconcile(choose)
    assert lost
    assert error is None
    assert len(window.steady.list_model_versions(window.task)) == 2
    window.check()


def test_a_run_is_logged_or_it_is_a_clear_error(open_window: Callable[[], Window], tmp_path: Path) -> None:
    window = open_window()
    (tmp_path / "plot.txt").write_text("a plot", "utf-8")

    def log(choose: Choose) -> tuple[TrackingError | None, str]:
        window.proxy.requests.clear()
        window.proxy.choose_fault = choose
        run_id = ""
        try:
            run_id = window.shaky.open_run(window.task, name="training", tags={})
            window.shaky.log_parameters(run_id, {"r": 8})
            window.shaky.log_metrics(run_id, {"loss": 0.5}, step=1)
            window.shaky.log_artifact(run_id, tmp_path / "plot.txt")
            window.shaky.close_run(run_id, failed=False)
        except TrackingError as error:
            return error, run_id
        finally:
            window.proxy.choose_fault = lambda *_: ""
        return None, run_id

    log(lambda *_: "")
    count = len(window.proxy.requests)
    for fatal in range(1, count + 1):
        error, run_id = log(_spoil(_FAULTS[fatal % len(_FAULTS)], fatal, fatal))
        if error is None:
            run: Any = window.steady._client.get_run(run_id)
            assert (run.data.params, run.data.metrics) == ({"r": "8"}, {"loss": 0.5})
            assert run.info.status == "FINISHED"
    error, _ = log(_spoil("busy", count // 2))
    assert error is not None
    assert window.registry.ledger.read_history(window.task) == window.history
