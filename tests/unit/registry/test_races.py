"""Many processes on one task at once: nothing is lost, and whoever came too late is told why."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import ConflictError
from lorry_registry.ledger.events import Event
from lorry_registry.registry import Registry
from lorry_registry.stores import Store

from fixtures.adapters import write_adapter

TASK = "reviews"
# On two cores 64 clients of S3 take their time.
_RACE_SECONDS = 800

# Forks as many processes as there are adapters, lets all of them start at the same moment, and prints what
# each was told. Importing once is what makes 64 of them bearable.
_RACE = """
import json, os, random, sys, time
from pathlib import Path
import boto3
from lorry_registry.ledger.alpha_spending import Challenge
from lorry_registry.errors import ConflictError
from lorry_registry.registry import Registry
from lorry_registry.stores import open_store
from lorry_registry.stores.s3_store import S3Store

what, address, cache, *adapters = sys.argv[1:]
TASK = "reviews"


def register(registry, number, *, promote):
    judged = registry.ledger.read_state(TASK).champion_version if promote else None
    return registry.register(TASK, adapters[number], promote=promote, judged_champion=judged,
                             reasons=(f"process {number}",), by=f"process {number}")


def challenge(registry, number):
    # The first version is the champion. All have a gain that is sure enough, and lose by their number.
    tested = Challenge(1, "sha256:" + "a" * 64, lambda earlier: (False, (f"{earlier} came before",)))
    return registry.register(TASK, adapters[number], promote=True, judged_champion=1, reasons=("sure",),
                             by=f"process {number}", challenge=tested)


ACTIONS = {
    "challenge": challenge,
    "register": lambda registry, number: register(registry, number, promote=False),
    "judge": lambda registry, number: register(registry, number, promote=True),
    # The first version is the champion when the race begins.
    "promote": lambda registry, number: registry.promote(TASK, number + 2, reason="a race", by=str(number)),
}


def race(number):
    registry = Registry(open_store(address), Path(cache))
    told = []
    for attempt in range(1000):
        try:
            event = ACTIONS[what](registry, number)
            return {"event": event.model_dump(mode="json"), "told": told}
        except ConflictError as error:
            told.append(error.what)
            # Judging anew takes a while, for each another one.
            time.sleep(random.uniform(0, min(2, 0.02 * 2 ** attempt)))


ready, start = os.pipe()
results = []
for number in range(len(adapters)):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(start)
        os.read(ready, 1)
        os.write(writer, json.dumps(race(number)).encode())
        os._exit(0)
    os.close(writer)
    results.append(reader)
os.close(start)
print(json.dumps([json.loads(b"".join(iter(lambda: os.read(reader, 65536), b""))) for reader in results]))
"""

_FEW = [("folder", 8), ("s3", 8), pytest.param("folder", 64, marks=pytest.mark.slow)]
few = pytest.mark.parametrize(("store", "count"), _FEW, indirect=["store"])
many = pytest.mark.parametrize(
    ("store", "count"), [*_FEW, pytest.param("s3", 64, marks=pytest.mark.exhaustive)], indirect=["store"]
)


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Let the races take place on either."""
    from lorry_registry.stores import LocalStore

    if getattr(request, "param", "folder") == "folder":
        return LocalStore(tmp_path / "store")
    found: Store = request.getfixturevalue("s3_store")
    return found


@pytest.fixture
def publish(registry: Registry, tmp_path: Path) -> Callable[[int], list[str]]:
    """Return a function that publishes adapters, which is not what these tests are about."""

    def publish_them(count: int) -> list[str]:
        adapters = [write_adapter(tmp_path / "adapters" / str(seed), seed=seed) for seed in range(count)]
        return [registry.publish(adapter.path, adapter.manifest) for adapter in adapters]

    return publish_them


@pytest.fixture
def race(
    start_script: Callable[..., Any], registry: Registry, tmp_path: Path
) -> Callable[[str, list[str]], list[dict[str, Any]]]:
    """Return a function that lets one process an adapter do the same at the same moment."""

    def run(what: str, adapters: list[str]) -> list[dict[str, Any]]:
        process = start_script(_RACE, what, registry.store.address, tmp_path / "caches", *adapters)
        output, errors = process.communicate(timeout=_RACE_SECONDS)
        assert process.returncode == 0, errors
        results: list[dict[str, Any]] = json.loads(output)
        assert None not in results
        return results

    return run


def check_history(registry: Registry, results: list[dict[str, Any]], *, former: int = 0) -> list[Event]:
    """Check that exactly the events that the processes were given happened, one after the other."""
    events = registry.ledger.read_history(TASK)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    given = sorted((Event.model_validate(result["event"]) for result in results), key=lambda e: e.sequence)
    assert given == events[former:]
    champion = None
    for event in events:
        assert event.champion_before == champion
        champion = event.champion_after
    state = registry.ledger.read_state(TASK)
    assert state.champion_version == champion
    assert state.head is not None
    assert state.head.versions == len(registry.list_versions(TASK))
    assert all(error is None for _, error in registry.verify_task(TASK))
    return events


@few
def test_all_that_register_at_once_get_a_version_and_none_is_told_of_a_conflict(
    registry: Registry, publish: Any, race: Any, count: int
) -> None:
    adapters = publish(count)
    results = race("register", adapters)
    events = check_history(registry, results)
    assert sorted(event.version for event in events) == list(range(1, count + 1))
    assert {event.adapter_id for event in events} == set(adapters)
    # They were judged by nothing that could have changed.
    assert [result["told"] for result in results] == [[]] * count


@many
def test_each_candidate_wins_against_the_champion_that_it_was_judged_by(
    registry: Registry, publish: Any, race: Any, count: int
) -> None:
    adapters = publish(count)
    results = race("judge", adapters)
    events = check_history(registry, results)
    assert {event.adapter_id for event in events} == set(adapters)
    assert all(event.champion_after == event.version for event in events)
    told = [reason for result in results for reason in result["told"]]
    # Those that came too late know by which champion they have to be judged now.
    assert told
    assert all("but the gate compared with" in reason for reason in told)


@few
def test_of_all_that_promote_at_once_each_wins_or_is_told_that_the_champion_changed(
    registry: Registry, publish: Any, race: Any, count: int
) -> None:
    adapters = publish(count + 1)
    for number, adapter_id in enumerate(adapters):
        registry.register(
            TASK, adapter_id, promote=number == 0, judged_champion=None, reasons=(), by="before the race"
        )
    results = race("promote", adapters[1:])
    events = check_history(registry, results, former=count + 1)
    assert {event.version for event in events[count + 1 :]} == set(range(2, count + 2))
    told = [reason for result in results for reason in result["told"]]
    assert all(reason.startswith("the champion changed meanwhile: it was v") for reason in told)


@few
def test_of_all_that_challenge_a_champion_at_once_each_is_judged_by_its_place_in_the_ledger(
    registry: Registry, publish: Any, race: Any, count: int
) -> None:
    champion, *adapters = publish(count + 1)
    registry.register(TASK, champion, promote=True, judged_champion=None, reasons=(), by="before the race")
    results = race("challenge", adapters)
    events = check_history(registry, results, former=1)[1:]
    # Whatever each knew when it was judged: no two are the first.
    assert [event.reasons for event in events] == [(f"{place} came before",) for place in range(count)]
    assert registry.ledger.read_state(TASK).champion_version == 1


def test_a_swap_that_happened_is_no_conflict_though_others_went_on_from_there(
    registry: Registry, publish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when an answer of S3 is lost, and another writer comes before the swap is sent again."""
    first, second = publish(2)
    other = Registry(registry.store, registry.adapters.cache.folder)
    swap = registry.store.compare_and_swap

    def lose_answer(key: str, content: bytes, expected: str | None) -> str:
        swap(key, content, expected)
        monkeypatch.undo()
        other.register(TASK, second, promote=True, judged_champion=1, reasons=(), by="somebody else")
        raise ConflictError("it was changed by another writer since it was read")

    monkeypatch.setattr(registry.store, "compare_and_swap", lose_answer)
    event = registry.register(TASK, first, promote=True, judged_champion=None, reasons=("mine",))
    assert (event.version, event.champion_after, event.reasons) == (1, 1, ("mine",))
    assert [each.version for each in registry.ledger.read_history(TASK)] == [1, 2]
