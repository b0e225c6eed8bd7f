"""gc on S3 behind a network that fails."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import StoreError
from lorry_registry.maintenance.collection import Rules, plan_collection, sweep_store
from lorry_registry.registry import Registry
from lorry_registry.stores.s3_store import S3Store

from fixtures.s3_faults import FaultProxy
from fixtures.s3_server import QUICK

_RULES = Rules(1, timedelta())


@pytest.fixture
def store(s3_store: S3Store) -> S3Store:
    return s3_store


@pytest.fixture
def shaky(
    store: S3Store, register_adapter: Callable[..., Any], faults: FaultProxy, tmp_path: Path
) -> Registry:
    """Return a registry behind the proxy, with five versions, of which the first three can go."""
    for seed in range(1, 6):
        register_adapter(seed=seed)
    registry = Registry(S3Store(store.address, retries=QUICK), tmp_path / "cache")
    registry.store.check_writable()
    # S3 dates keys by whole seconds, and what may be of the same second as the plan is spared.
    published = store.read_clock()
    while store.read_clock() - published < timedelta(seconds=2):
        time.sleep(0.2)
    return registry


def _list_sound(registry: Registry) -> list[int]:
    return [version.number for version, error in registry.verify_task("reviews") if error is None]


def _list_unexplained(registry: Registry) -> list[str]:
    errors = [str(error) for _, error in registry.verify_task("reviews") if error]
    return [error for error in errors if "were collected" not in error]


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_a_server_that_refuses_writes_leaves_each_adapter_whole_or_absent(
    shaky: Registry, faults: FaultProxy, method: str
) -> None:
    plan = plan_collection(shaky, _RULES)
    faults.always = {method: "busy"}
    sweep = sweep_store(shaky, plan, _RULES)
    assert sweep.problems
    faults.always = {}
    assert {4, 5} <= set(_list_sound(shaky))
    assert _list_unexplained(shaky) == []
    # Its own tombstones are in force, as it has not ended; a later run finishes.
    shaky.store.delete_all(list(shaky.store.list_keys("tombstones")))
    assert not sweep_store(shaky, plan_collection(shaky, _RULES), _RULES).problems
    assert _list_sound(shaky) == [4, 5]


def test_a_store_that_cannot_be_listed_frees_nothing(shaky: Registry, faults: FaultProxy) -> None:
    faults.always = {"GET": "busy"}
    with pytest.raises(StoreError, match="still answers SlowDown"):
        plan_collection(shaky, _RULES)


def test_publishing_costs_two_small_requests_more_and_resolving_none(
    shaky: Registry, make_adapter: Callable[..., Any], faults: FaultProxy, tmp_path: Path
) -> None:
    def count(action: Callable[[], object]) -> list[str]:
        faults.requests.clear()
        action()
        return [method for method, path, _ in faults.requests if "/leases/" in path or "/tombstones/" in path]

    adapter = make_adapter(seed=9)
    assert count(lambda: shaky.publish(adapter.path, adapter.manifest)) == ["PUT", "GET"]
    judged = shaky.ledger.read_state("reviews").champion_version
    assert count(
        lambda: shaky.register(
            "reviews", adapter.adapter_id, promote=True, judged_champion=judged, reasons=()
        )
    ) == ["DELETE"]
    assert count(lambda: shaky.resolve("reviews")) == []
    assert count(lambda: shaky.fetch(adapter.adapter_id)) == ["PUT", "DELETE"]
    assert count(lambda: shaky.fetch(adapter.adapter_id)) == []
