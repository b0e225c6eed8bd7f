"""gc beside everything else that uses a store, in threads and processes, for some seconds.

``LORRY_RACE_SECONDS`` makes it longer.
"""

import json
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.leases.content_leases import TOMBSTONES
from lorry_registry.maintenance.collection import Rules, plan_collection, sweep_store
from lorry_registry.registry import Registry
from lorry_registry.stores import Store

_SECONDS = float(os.environ.get("LORRY_RACE_SECONDS", "5"))
_KEPT = 2

# What a process does until time is up: its actions at random, in three threads. Each prints what it counted,
# and a violation ends it.
_ACT = """
import collections, contextlib, json, random, shutil, sys, threading, time, traceback
from datetime import timedelta
from pathlib import Path
from lorry_registry.maintenance.collection import Rules, plan_collection, sweep_store
from lorry_registry.errors import AdapterRejectedError, ConflictError, LorryError, NotFoundError
from lorry_registry.manifest import Manifest
from lorry_registry.registry import Registry
from lorry_registry.stores import open_store
from lorry_registry.maintenance.task_deletion import delete_task, restore_task
from lorry_registry.adapters.verification import verify_adapter

address, folder, role, seconds, kept = sys.argv[1:]
folder, seconds, kept = Path(folder), float(seconds), int(kept)
store = open_store(address)
adapters = [
    (path, Manifest.parse((path / "manifest.json").read_bytes(), where=""))
    for path in sorted(folder.iterdir())
]
tasks = ["films", "reviews"]
rules = Rules(kept, timedelta())
counts, violations = collections.Counter(), []

def collect(registry, chance):
    sweep = sweep_store(registry, plan_collection(registry, rules), rules)
    counts["freed"] += sum(finding.kind in ("version", "adapter", "files") for finding in sweep.removed)
    counts["spared"] += len(sweep.spared)
    for error in sweep.problems.values():
        violations.append(f"gc: {error}")

def publish(registry, chance):
    path, manifest = chance.choice(adapters)
    registry.publish(path, manifest)
    if chance.random() < 0.2:
        counts["published only"] += 1
        return
    champion = registry.ledger.read_state(manifest.task).champion_version
    registry.register(manifest.task, manifest.adapter_id, promote=chance.random() < 0.7,
                      judged_champion=champion, reasons=("a race",))
    counts["registered"] += 1

def move(registry, chance):
    task = chance.choice(tasks)
    if chance.random() < 0.5:
        registry.rollback(task, reason="a race")
    else:
        registry.promote(task, chance.randint(1, 5), reason="a race")
    counts["moved"] += 1

def fetch(registry, chance):
    task = chance.choice(tasks)
    versions = registry.list_versions(task)
    if not versions:
        return
    adapter_id = chance.choice(versions).adapter_id
    target = folder.parent / "out" / f"{role}-{threading.get_ident()}-{chance.random()}"
    try:
        registry.export(adapter_id, target)
        verify_adapter(target, expected_id=adapter_id)
        counts["fetched"] += 1
    except NotFoundError:
        counts["gone"] += 1
        if target.exists():
            violations.append("a folder without an adapter")
    finally:
        shutil.rmtree(target, ignore_errors=True)

def check(registry, chance):
    # What a head names is whole, unless the head has moved on meanwhile.
    task = chance.choice(tasks)
    state = registry.ledger.read_state(task)
    if state.champion is None:
        return
    try:
        registry.check_version(task, state.champion.version, state.champion.adapter_id)
        counts["checked"] += 1
    except LorryError as error:
        if registry.ledger.read_state(task).champion_version == state.champion_version:
            violations.append(f"{task} v{state.champion_version}: {error}")

def remove(registry, chance):
    # Without a grace period a deleted task may lose everything at once.
    task = "films"
    try:
        delete_task(registry, task, reason="a race")
        counts["deleted"] += 1
    finally:
        with contextlib.suppress(ConflictError):
            restore_task(registry, task, reason="a race")

ACTIONS = {"gc": [collect], "writer": [publish, publish, move], "reader": [fetch, check],
           "mixed": [collect, publish, move, fetch, check, remove]}[role]

def act(number):
    chance = random.Random(f"{role} {number}")
    registry = Registry(store, folder.parent / "cache")
    end = time.monotonic() + seconds
    while time.monotonic() < end and not violations:
        action = chance.choice(ACTIONS)
        try:
            action(registry, chance)
        except (ConflictError, NotFoundError):
            counts["refused"] += 1
        except Exception:
            violations.append(f"{action.__name__}: {traceback.format_exc()}")

threads = [threading.Thread(target=act, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"counts": counts, "violations": violations}))
"""


@pytest.mark.slow
def test_nothing_that_a_head_or_the_last_versions_name_is_ever_missing(
    store: Store,
    register_adapter: Callable[..., Any],
    run_scripts: Callable[..., list[str]],
    tmp_path: Path,
) -> None:
    for task in ("films", "reviews"):
        for seed in range(5):
            register_adapter(task, seed)
    folder = tmp_path / "adapters"
    roles = ("gc", "writer", "writer", "reader", "mixed")
    arguments = [(store.address, folder, role, _SECONDS, _KEPT) for role in roles]
    outcomes = [json.loads(output) for output in run_scripts(_ACT, arguments)]
    assert [violation for outcome in outcomes for violation in outcome["violations"]] == []
    counts = {
        name: sum(outcome["counts"].get(name, 0) for outcome in outcomes)
        for name in {name for outcome in outcomes for name in outcome["counts"]}
    }
    assert counts["freed"] > 0
    assert counts["registered"] > 0
    assert counts["fetched"] > 0
    registry, rules = Registry(store, tmp_path / "cache"), Rules(_KEPT, timedelta())
    _check_at_rest(registry)
    # S3 dates its keys by the second.
    time.sleep(1.1)
    sweep = sweep_store(registry, plan_collection(registry, rules), rules)
    assert not sweep.problems
    assert not sweep.spared
    _check_at_rest(registry)
    # Publications that were never registered, by processes that have ended, hold nothing any more.
    assert all(kept.task for kept in plan_collection(registry, rules).kept)
    assert list(store.list_keys(TOMBSTONES)) == []


def _check_at_rest(registry: Registry) -> None:
    for task in registry.ledger.list_tasks():
        errors = {version.number: error for version, error in registry.verify_task(task)}
        assert all(error is None or "were collected" in str(error) for error in errors.values())
        champion = registry.ledger.read_state(task).champion_version
        assert champion is None or errors[champion] is None
        if task == "reviews":
            newest = registry.list_versions(task)[-_KEPT:]
            assert [version.number for version in newest if errors[version.number] is not None] == []
