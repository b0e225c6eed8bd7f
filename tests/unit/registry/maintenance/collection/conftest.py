"""A registry on a folder and on S3 whose clock can be moved, and adapters in it."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.maintenance.collection import Plan, Rules, Sweep, plan_collection, sweep_store
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore, Store


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Return an empty store of each kind."""
    if request.param == "s3":
        on_s3: Store = request.getfixturevalue("s3_store")
        return on_s3
    return LocalStore(tmp_path / "store")


@pytest.fixture
def registry(store: Store, tmp_path: Path) -> Registry:
    return Registry(store, tmp_path / "cache")


@pytest.fixture
def wait(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that moves the store's clock on: ``wait(days=8)``."""
    true_clock, passed = store.read_clock, [timedelta()]

    def read_clock() -> datetime:
        return true_clock() + passed[0]

    def move_on(**duration: float) -> None:
        passed[0] += timedelta(**duration)

    monkeypatch.setattr(store, "read_clock", read_clock)
    return move_on


@pytest.fixture
def collect(registry: Registry) -> Callable[..., tuple[Plan, Sweep]]:
    """Return a function that plans a collection and applies it."""

    def run(keep_last: int = 2, **grace: float) -> tuple[Plan, Sweep]:
        rules = Rules(keep_last, timedelta(**grace) if grace else timedelta(days=7))
        plan = plan_collection(registry, rules)
        return plan, sweep_store(registry, plan, rules, by="the night")

    return run


@pytest.fixture
def six_versions(register_adapter: Callable[..., Any]) -> list[Any]:
    """Six versions of reviews; the fourth is the champion and the second was the one before it."""
    promoted = {2, 4}
    return [register_adapter(seed=number, promote=number in promoted)[0] for number in range(1, 7)]
