"""Every operation of the registry on S3, with each of its requests spoiled in turn.

One fault is made good without a word. A server that goes away in the middle is one clear error, leaves
nothing half there, and what was interrupted can be done again.
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from crashes.operations import (
    TASK,
    Fetch,
    Operation,
    Place,
    Promote,
    Publish,
    Register,
    RegisterFirst,
    Rollback,
    list_history,
)
from lorry_registry.errors import LorryError, StoreError
from lorry_registry.stores.s3_store import S3Store

from fixtures.adapters import write_adapter
from fixtures.s3_faults import STALL_SECONDS, FaultProxy
from fixtures.s3_server import BUCKET, QUICK, S3Server

Choose = Callable[[int, str, str], str]
_FAULTS = ("busy", "lose", "cut", "drop", "stall")


class Read(Operation):
    """Whatever only reads: it says the same as it would without a fault."""

    name = "read"

    def prepare(self, place: Place) -> None:
        Promote().prepare(place)

    def act(self, place: Place) -> None:
        registry = place.open_registry()
        assert [(entry.task, entry.versions) for entry in registry.list_tasks()] == [(TASK, 2)]
        assert [version.number for version in registry.list_versions(TASK)] == [1, 2]
        assert registry.resolve(TASK, 2).adapter_id == place.adapters["b"].adapter_id
        problems = [error for _, error in registry.verify_task(TASK) if error is not None]
        if problems:
            # What cannot be read must not be called damaged.
            assert all(isinstance(problem, StoreError) for problem in problems)
            raise problems[0]

    def examine(self, place: Place) -> str:
        assert list_history(place) == list(Promote.before)
        return "read"

    def finish(self, place: Place) -> None:
        self.act(place)


_OPERATIONS = (Publish(), Fetch(), RegisterFirst(), Register(), Promote(), Rollback(), Read())
# What these ask of the store, the others ask as well.
_REPEATING = ("promote", "rollback", "read")
_CASES = [
    pytest.param(
        operation,
        id=operation.name,
        marks=[pytest.mark.exhaustive] if operation.name in _REPEATING else [pytest.mark.slow],
    )
    for operation in _OPERATIONS
]
_DONE = ("whole", "moved", "read")


class Spoiled:
    """Runs operations behind the proxy, on an empty store each time."""

    def __init__(self, root: Path, address: str, faults: FaultProxy, server: S3Server) -> None:
        self._root = root
        self._server = server
        self.faults = faults
        self._numbers = itertools.count()
        adapters = {name: write_adapter(root / "given" / name, seed=seed) for seed, name in enumerate("abc")}
        shaky = S3Store(address, retries=QUICK, read_seconds=STALL_SECONDS / 2)
        shaky.check_writable()
        self._shaky = Place(root, shaky, adapters)
        steady = S3Store(address, retries=QUICK)
        # The same server, without the proxy.
        steady.__dict__["_client"] = server.open_client()
        self._steady = Place(root, steady, adapters)

    def run(self, operation: Operation, choose: Choose) -> tuple[LorryError | None, int, Place]:
        """Do it; return its error, how many requests it made, and a place to look at the result."""
        self._clear()
        folder = self._root / str(next(self._numbers))
        steady, shaky = (replace(place, root=folder) for place in (self._steady, self._shaky))
        operation.prepare(steady)
        self.faults.requests.clear()
        self.faults.choose_fault = choose
        error = None
        try:
            operation.act(shaky)
        except LorryError as raised:
            error = raised
        finally:
            self.faults.choose_fault = lambda *_: ""
        return error, len(self.faults.requests), steady

    def count_requests(self, operation: Operation) -> int:
        error, count, _ = self.run(operation, lambda *_: "")
        assert error is None
        return count

    def _clear(self) -> None:
        client = self._server.open_client()
        prefix = self._steady.store.address.removeprefix(f"s3://{BUCKET}/") + "/"
        for entry in client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ()):
            client.delete_object(Bucket=BUCKET, Key=entry["Key"])


@pytest.fixture
def spoiled(tmp_path: Path, s3_address: str, faults: FaultProxy, s3_server: S3Server) -> Iterator[Spoiled]:
    return Spoiled(tmp_path, s3_address, faults, s3_server)


def _spoil(fault: str, first: int, last: int = sys.maxsize) -> Choose:
    return lambda number, *_: fault if first <= number <= last else ""


@pytest.mark.parametrize("operation", _CASES)
def test_each_request_may_be_spoiled_once(spoiled: Spoiled, operation: Operation) -> None:
    count = spoiled.count_requests(operation)
    assert count > 2
    for fatal in range(1, count + 1):
        # All faults are met by all operations, though not by every request.
        fault = _FAULTS[fatal % len(_FAULTS)]
        error, _, place = spoiled.run(operation, _spoil(fault, fatal, fatal))
        assert error is None, (fatal, fault, error)
        assert operation.examine(place) in _DONE, (fatal, fault)
        operation.finish(place)


@pytest.mark.parametrize("operation", _CASES)
def test_a_server_that_goes_away_leaves_nothing_half_there(spoiled: Spoiled, operation: Operation) -> None:
    count = spoiled.count_requests(operation)
    for fatal in range(1, count + 1):
        fault = ("busy", "lose", "drop")[fatal % 3]
        error, _, place = spoiled.run(operation, _spoil(fault, fatal))
        state = operation.examine(place)
        # The last write files an event that the head carries already: no error, and nothing is lost.
        assert error is not None or state in _DONE, (fatal, fault)
        assert error is None or isinstance(error, StoreError), (fatal, fault, error)
        operation.finish(place)
