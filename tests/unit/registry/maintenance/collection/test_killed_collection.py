"""A collection that is killed at each of its steps, and run again."""

import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.adapters.stored_adapters import adapter_key
from lorry_registry.leases.content_leases import LEASES, TOMBSTONES
from lorry_registry.maintenance.collection import Rules, plan_collection, sweep_store
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

_WRITES = ("create", "compare_and_swap", "overwrite", "delete")
_RULES = Rules(1, timedelta())


class Doomed(LocalStore):
    """A folder whose process is killed right after one of its writes."""

    def __init__(self, root: Path, step: int) -> None:
        super().__init__(root)
        self._left, self._lock = step, threading.Lock()

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name not in _WRITES:
            return value

        def act(*arguments: Any) -> Any:
            with self._lock:
                self._left -= 1
                is_last = self._left == 0
            result = value(*arguments)
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return act


def _run_apart(action: Callable[[], object]) -> int:
    """Run something in a process of its own; return the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        # Not even pytest's own clean-up may run in here.
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def _collect(store: LocalStore, cache: Path) -> None:
    registry = Registry(store, cache)
    sweep = sweep_store(registry, plan_collection(registry, _RULES), _RULES, by="a test")
    assert not sweep.problems


@pytest.mark.slow
def test_each_adapter_is_whole_or_absent_and_a_second_run_finishes(
    store: LocalStore,
    registry: Registry,
    register_adapter: Callable[..., Any],
    make_adapter: Callable[..., Any],
    tmp_path: Path,
) -> None:
    versions = [register_adapter(seed=number)[0] for number in range(1, 5)]
    unused = make_adapter(seed=9)
    registry.publish(unused.path, unused.manifest)
    with registry.leases.hold(unused.adapter_id.removeprefix("sha256:")):
        pass
    whole = {
        path.relative_to(store.root): path.read_bytes() for path in store.root.rglob("*") if path.is_file()
    }
    step = 0
    while True:
        step += 1
        for path, content in whole.items():
            (store.root / path).parent.mkdir(parents=True, exist_ok=True)
            (store.root / path).write_bytes(content)
        for event in (store.root / "tasks" / "reviews" / "history").iterdir():
            if event.relative_to(store.root) not in whole:
                event.unlink()
        doomed = Doomed(store.root, step)
        if _run_apart(lambda doomed=doomed: _collect(doomed, tmp_path / "cache")) == 0:  # type: ignore[misc]
            break
        for adapter in (*versions, unused):
            names = set(store.list_children(adapter_key(adapter.adapter_id)))
            assert "manifest.json" not in names or len(names) == 4, (step, names)
        sound = [version.number for version, error in registry.verify_task("reviews") if error is None]
        assert {3, 4} <= set(sound), step
        assert registry.resolve("reviews").version == 4
        # The dead collection's tombstones stand in nobody's way.
        registry.publish(unused.path, unused.manifest)
        with registry.leases.hold(unused.adapter_id.removeprefix("sha256:")):
            pass
        assert _run_apart(lambda: _collect(store, tmp_path / "cache")) == 0
        assert sorted(version.number for version, error in registry.verify_task("reviews") if not error) == [
            3,
            4,
        ]
        for adapter in (*versions[:2], unused):
            assert list(store.list_keys(adapter_key(adapter.adapter_id))) == []
        assert list(store.list_keys(TOMBSTONES)) == []
        assert list(store.list_keys(LEASES)) == []
        errors = [str(error) for _, error in registry.verify_task("reviews") if error]
        assert all("were collected" in error for error in errors)
    # Three tombstones up, an event in head and history, a manifest and three files of each, three down.
    assert step > 3 + 2 + 3 * 4 + 3
