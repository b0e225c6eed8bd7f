"""Runs an operation in a child, kills it at one of its steps, and lets another child see what is left."""

import gc
import importlib
import json
import logging
import os
import random
import shutil
import sys
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crashes.operations import Operation, Place
from crashes.steps import Watch, watch_everything
from lorry_registry.stores import LocalStore, Store

from fixtures.adapters import AdapterFolder, enlarge_adapter, write_adapter
from fixtures.s3_server import BUCKET, QUICK

_MIB = 1 << 20
_IMPORTS = (
    "boto3",
    "botocore.client",
    "lorry_components.steps.register.mlflow_publication",
    "lorry_registry.mlflow.index",
    "lorry_registry.stores.s3_store",
    "mlflow.pyfunc",
    "mlflow.store.artifact.local_artifact_repo",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
)


@dataclass(frozen=True)
class Kill:
    """A kill and what became of it.

    Attributes:
        operation: What was killed.
        step: Where.
        state: What was left.
        problem: What was wrong then, or after it was done again; "" if nothing was.
    """

    operation: str
    step: str
    state: str
    problem: str


def prepare_process(folder: Path) -> Path:
    """Import what the children need, so that they start at once, and return an MLflow's empty database."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # MLflow 3.17 warns of its own type hints when it is imported.
        warnings.simplefilter("ignore")
        for name in _IMPORTS:
            importlib.import_module(name)
    path = folder / "empty.db"
    # In a child, since an open database must not be inherited.
    created = _run_child(lambda _: _create_mlflow(path), folder / "create")
    assert created.status == 0, created.text
    # No collection of a child walks over all of that, and copies its memory by doing so.
    gc.collect()
    gc.freeze()
    return path


def _create_mlflow(path: Path) -> None:
    from lorry_registry.mlflow.index import MlflowIndex

    MlflowIndex(f"sqlite:///{path}").check_reachable()


class Killer:
    """Kills operations, each in a place of its own.

    Args:
        root: A folder for everything.
        kind: ``folder`` or ``s3``; for the latter boto3 finds the server by the environment.
        empty_mlflow: A SQLite file with MLflow's tables.
    """

    def __init__(self, root: Path, kind: str, empty_mlflow: Path) -> None:
        self._root = root
        self._kind = kind
        self._empty_mlflow = empty_mlflow
        self._adapters = _write_adapters(root / "adapters")
        self._steps: dict[str, int] = {}

    def kill_at_random(
        self, operations: Sequence[Operation], count: int, generator: random.Random
    ) -> Iterator[Kill]:
        """Kill each operation in turn, each time at a step that is chosen anew."""
        for number in range(count):
            operation = operations[number % len(operations)]
            yield self.kill(operation, generator.randint(1, self.count_steps(operation)))

    def kill_everywhere(self, operation: Operation) -> Iterator[Kill]:
        """Kill an operation at each of its steps."""
        for fatal in range(1, self.count_steps(operation) + 1):
            yield self.kill(operation, fatal)

    def count_steps(self, operation: Operation) -> int:
        """Return how many steps an operation has when nothing ends it."""
        if operation.name not in self._steps:
            folder, open_place = self._make_place()
            steps = _run_child(lambda log: _act(operation, open_place(), log, None), folder / "steps")
            assert steps.status == 0, steps.text
            self._steps[operation.name] = len(steps.names)
            shutil.rmtree(folder)
        return self._steps[operation.name]

    def kill(self, operation: Operation, fatal: int) -> Kill:
        """Kill an operation at a step, see what is left, do it again, and see that all is well."""
        folder, open_place = self._make_place()
        killed = _run_child(lambda log: _act(operation, open_place(), log, fatal), folder / "steps")
        # One that works in several threads may have fewer steps this time, and end first.
        assert killed.status in (-9, 0), f"{operation.name} was not killed at step {fatal}: {killed.text}"
        looked = _run_child(lambda log: _look(operation, open_place(), log), folder / "look")
        shutil.rmtree(folder)
        state, problem = looked.names[0] if looked.names else "unknown", ""
        if looked.status != 0:
            problem = looked.text
        return Kill(operation.name, killed.names[-1], state, problem)

    def _make_place(self) -> tuple[Path, Callable[[], Place]]:
        name = uuid.uuid4().hex
        folder = self._root / name
        folder.mkdir()
        shutil.copyfile(self._empty_mlflow, folder / "mlflow.db")

        def open_place() -> Place:
            return Place(folder, self._open_store(name), self._adapters)

        return folder, open_place

    def _open_store(self, name: str) -> Store:
        if self._kind == "folder":
            return LocalStore(self._root / name / "store")
        from lorry_registry.stores import s3_store

        # S3 takes no smaller part than this, except for the last one.
        s3_store._PART_BYTES = 5 * _MIB
        return s3_store.S3Store(f"s3://{BUCKET}/kills/{name}", retries=QUICK)


def _write_adapters(root: Path) -> dict[str, AdapterFolder]:
    adapters = {name: write_adapter(root / name, seed=seed) for seed, name in enumerate("abc")}
    large = write_adapter(root / "large", seed=9)
    return adapters | {"large": AdapterFolder(large.path, enlarge_adapter(large, 6))}


def _act(operation: Operation, place: Place, log: int, fatal: int | None) -> None:
    watch = Watch(log, fatal)
    watch_everything(watch)
    operation.prepare(place)
    with watch.armed():
        operation.act(place)


def _look(operation: Operation, place: Place, log: int) -> None:
    os.write(log, f"{operation.examine(place)}\n".encode())
    operation.finish(place)


@dataclass(frozen=True)
class _Ended:
    status: int
    names: list[str]
    text: str


def _run_child(body: Callable[[int], Any], path: Path) -> _Ended:
    """Run a function in a fork of this process, which has imported everything, and wait for it."""
    errors = path.with_suffix(".err")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _redirect(errors)
            body(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
            status = 0
        except BaseException:  # noqa: BLE001 -- the parent reads it
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    names = path.read_text("utf-8").splitlines() if path.exists() else []
    return _Ended(status, names, errors.read_text("utf-8", errors="replace")[-4000:])


def _redirect(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)


def count_kills(kills: Sequence[Kill]) -> list[tuple[str, str, int, str, int]]:
    """Return a row for each operation and step: how many kills, what they left, and how many had problems."""
    rows: dict[tuple[str, str], list[Kill]] = {}
    for kill in kills:
        rows.setdefault((kill.operation, kill.step), []).append(kill)
    return [
        (operation, step, len(found), _count_states(found), sum(bool(kill.problem) for kill in found))
        for (operation, step), found in sorted(rows.items())
    ]


def _count_states(kills: Sequence[Kill]) -> str:
    states = sorted({kill.state for kill in kills})
    return ", ".join(f"{sum(kill.state == state for kill in kills)} {state}" for state in states)


def describe_problem(kill: Kill) -> str:
    """Return a problem with its place, for a message."""
    return json.dumps([kill.operation, kill.step, kill.state]) + "\n" + kill.problem
