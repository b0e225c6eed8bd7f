"""What is killed, what must be true afterwards, and how it is done again."""

import os
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from lorry_registry.adapters.stored_adapters import adapter_key
from lorry_registry.adapters.verification import verify_adapter
from lorry_registry.errors import ConflictError, NotFoundError
from lorry_registry.maintenance.collection import Rules, plan_collection, sweep_store
from lorry_registry.maintenance.task_deletion import delete_task, restore_task
from lorry_registry.manifest import MANIFEST_NAME
from lorry_registry.registry import Registry
from lorry_registry.stores import Store

from fixtures.adapters import AdapterFolder

TASK = "reviews"


@dataclass(frozen=True)
class Place:
    """Where an operation works: a store, a cache, an MLflow, and the adapters that it is given.

    Attributes:
        root: A folder for the cache and for MLflow.
        store: The store, opened by the process that uses it.
        adapters: The adapters; the first two are small, ``large`` is uploaded in parts.
    """

    root: Path
    store: Store
    adapters: Mapping[str, AdapterFolder]

    def open_registry(self) -> Registry:
        return Registry(self.store, self.root / "cache")


class Operation(ABC):
    """One thing that a process does until it is killed."""

    name: str

    def prepare(self, place: Place) -> None:  # noqa: B027 -- most begin with something, some with nothing
        """Bring about what the operation starts from."""

    @abstractmethod
    def act(self, place: Place) -> None:
        """Do it. This is killed, and done again afterwards."""

    @abstractmethod
    def examine(self, place: Place) -> str:
        """Check what a kill has left, and return which of the allowed states it is."""

    @abstractmethod
    def finish(self, place: Place) -> None:
        """Do it again, and check that all is as if there had been no kill."""


class Publish(Operation):
    """The files and the manifest of an adapter."""

    name = "publish"
    _which = "a"

    def act(self, place: Place) -> None:
        publish(place, self._which)

    def examine(self, place: Place) -> str:
        return "whole" if check_adapter(place, self._which) else "absent"

    def finish(self, place: Place) -> None:
        self.act(place)
        assert check_adapter(place, self._which)
        place.open_registry().fetch(place.adapters[self._which].adapter_id)


class PublishLarge(Publish):
    """An adapter whose weights are uploaded in parts."""

    name = "publish in parts"
    _which = "large"


class Fetch(Operation):
    """An adapter, downloaded into the cache."""

    name = "fetch"

    def prepare(self, place: Place) -> None:
        publish(place, "a")

    def act(self, place: Place) -> None:
        place.open_registry().fetch(place.adapters["a"].adapter_id)

    def examine(self, place: Place) -> str:
        adapter_id = place.adapters["a"].adapter_id
        folder = place.root / "cache" / adapter_id.removeprefix("sha256:")
        if not folder.exists():
            return "absent"
        verify_adapter(folder, expected_id=adapter_id)
        return "whole"

    def finish(self, place: Place) -> None:
        self.act(place)
        assert self.examine(place) == "whole"


class _LedgerOperation(Operation):
    """One event of the ledger: it happened, or it did not."""

    before: tuple[str, ...] = ()
    event: str

    def examine(self, place: Place) -> str:
        history = list_history(place)
        if history == list(self.before):
            return "not moved"
        assert history == [*self.before, self.event], history
        return "moved"

    def finish(self, place: Place) -> None:
        self.repeat(place, self.examine(place) == "moved")
        assert list_history(place) == [*self.before, self.event]
        # The next writer files what the head still carries, and goes on from there.
        publish(place, "c")
        register(place, "c", champion=read_champion(place))
        assert list_history(place)[:-1] == [*self.before, self.event]

    def repeat(self, place: Place, has_happened: bool) -> None:
        """Do it again; by default, as if nobody knew whether it had happened."""
        self.act(place)


class RegisterFirst(_LedgerOperation):
    """The first version of a task."""

    name = "register the first"
    event = "register v1 -> v1"

    def prepare(self, place: Place) -> None:
        publish(place, "a")

    def act(self, place: Place) -> None:
        register(place, "a", champion=None)


class Register(_LedgerOperation):
    """A version that becomes the champion."""

    name = "register"
    before = ("register v1 -> v1",)
    event = "register v2 -> v2"

    def prepare(self, place: Place) -> None:
        publish(place, "a")
        publish(place, "b")
        register(place, "a", champion=None)

    def act(self, place: Place) -> None:
        register(place, "b", champion=1)


class Promote(_LedgerOperation):
    """A challenger that becomes the champion."""

    name = "promote"
    before = ("register v1 -> v1", "register v2 -> v1")
    event = "promote v2 -> v2"

    def prepare(self, place: Place) -> None:
        publish(place, "a")
        publish(place, "b")
        register(place, "a", champion=None)
        register(place, "b", champion=1, promote=False)

    def act(self, place: Place) -> None:
        place.open_registry().promote(TASK, 2, reason="a test", by="the test")

    def repeat(self, place: Place, has_happened: bool) -> None:
        try:
            self.act(place)
        except ConflictError as error:
            assert has_happened
            assert error.what == "it is already the champion"
        else:
            assert not has_happened


class Rollback(_LedgerOperation):
    """The former champion made the champion again."""

    name = "rollback"
    before = ("register v1 -> v1", "register v2 -> v2")
    event = "rollback v1 -> v1"

    def prepare(self, place: Place) -> None:
        publish(place, "a")
        publish(place, "b")
        register(place, "a", champion=None)
        register(place, "b", champion=1)

    def act(self, place: Place) -> None:
        place.open_registry().rollback(TASK, reason="a test", by="the test")

    def repeat(self, place: Place, has_happened: bool) -> None:
        # Each rollback goes one back: whoever was interrupted looks at the history first.
        if not has_happened:
            self.act(place)


class Delete(_LedgerOperation):
    """A task whose name stands for nothing any more."""

    name = "delete"
    before = Rollback.before
    event = "delete v2 -> vNone"

    def prepare(self, place: Place) -> None:
        Rollback().prepare(place)

    def act(self, place: Place) -> None:
        delete_task(place.open_registry(), TASK, reason="a test", by="the test")

    def finish(self, place: Place) -> None:
        has_happened = self.examine(place) == "moved"
        try:
            self.act(place)
        except NotFoundError as error:
            assert has_happened
            assert "deleted" in error.what
        else:
            assert not has_happened
        restore_task(place.open_registry(), TASK, reason="a test", by="the test")
        assert list_history(place) == [*self.before, self.event, "restore v2 -> v2"]


class Restore(_LedgerOperation):
    """A deleted task, brought back with its champion."""

    name = "restore"
    before = (*Rollback.before, Delete.event)
    event = "restore v2 -> v2"

    def prepare(self, place: Place) -> None:
        Delete().prepare(place)
        Delete().act(place)

    def act(self, place: Place) -> None:
        restore_task(place.open_registry(), TASK, reason="a test", by="the test")

    def repeat(self, place: Place, has_happened: bool) -> None:
        try:
            self.act(place)
        except ConflictError as error:
            assert has_happened
            assert error.what == "the task is not deleted"
        else:
            assert not has_happened


class Collect(Operation):
    """The files of an old version, and of an adapter that no task has."""

    name = "gc"

    def prepare(self, place: Place) -> None:
        # In a process that ends: as long as it lives, it may be about to register what it published.
        child = os.fork()
        if child == 0:
            try:
                for name in ("a", "b", "c"):
                    publish(place, name)
                register(place, "a", champion=None, promote=False)
                register(place, "b", champion=None)
            except BaseException:  # noqa: BLE001 -- told in the log of the parent
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        # S3 dates keys by whole seconds, and what may be of the same second as the plan is spared.
        published, clock = place.store.read_clock(), place.store.read_clock
        while clock() - published < timedelta(seconds=2):
            time.sleep(0.2)

    def act(self, place: Place) -> None:
        rules = Rules(0, timedelta())
        registry = place.open_registry()
        sweep = sweep_store(registry, plan_collection(registry, rules), rules, by="the test")
        assert not sweep.problems, sweep.problems

    def examine(self, place: Place) -> str:
        # Whatever is still named is whole; what is going has no manifest, or has all of its files.
        assert check_adapter(place, "b")
        events = [event.action for event in place.open_registry().ledger.read_history(TASK)]
        assert events in (["register", "register"], ["register", "register", "collect"])
        left = sum(check_adapter(place, name) for name in ("a", "c"))
        return f"{left} to go"

    def finish(self, place: Place) -> None:
        self.act(place)
        assert [check_adapter(place, name) for name in ("a", "b", "c")] == [False, True, False]
        registry = place.open_registry()
        for name in ("a", "c"):
            key = adapter_key(place.adapters[name].adapter_id)
            assert list(place.store.list_keys(key)) == []
        assert registry.resolve(TASK).adapter_id == place.adapters["b"].adapter_id
        # What was collected may be published and used again.
        publish(place, "c")
        register(place, "c", champion=2)
        assert read_champion(place) == 3


class Reconcile(Operation):
    """MLflow, made to agree with the ledger: two versions are missing there."""

    name = "reconcile"

    def prepare(self, place: Place) -> None:
        Rollback().prepare(place)

    def act(self, place: Place) -> None:
        reconcile(place)

    def examine(self, place: Place) -> str:
        # The ledger is the truth whatever MLflow has.
        assert list_history(place) == list(Rollback.before)
        return f"{len(list_shown(place))} shown"

    def finish(self, place: Place) -> None:
        self.act(place)
        assert reconcile(place) == []
        shown = list_shown(place)
        adapters = [place.adapters[name].adapter_id for name in ("a", "b")]
        assert sorted(shown.values()) == sorted(adapters)
        assert find_alias(place) == place.open_registry().resolve(TASK).adapter_id


class ReconcileEdits(Reconcile):
    """MLflow, made to agree with the ledger again after a person edited it."""

    name = "reconcile edits"

    def prepare(self, place: Place) -> None:
        super().prepare(place)
        reconcile(place)
        client = open_index(place)._client
        client.set_registered_model_alias(TASK, "champion", "1")
        client.set_model_version_tag(TASK, "2", "lorry.adapter_id", place.adapters["a"].adapter_id)
        client.delete_model_version_tag(TASK, "1", "lorry.task")


_MOVES = (RegisterFirst(), Register(), Promote(), Rollback(), Delete(), Restore())
_IN_THE_STORE = (Publish(), Fetch(), *_MOVES, Collect())
_IN_MLFLOW = (Reconcile(), ReconcileEdits())

# In turn. Reconciling takes as long as twenty of the others, so it is killed less often.
ON_ANY_STORE: tuple[Operation, ...] = (*_IN_THE_STORE * 4, *_IN_MLFLOW)
ON_S3: tuple[Operation, ...] = (*ON_ANY_STORE, PublishLarge())


def publish(place: Place, which: str) -> None:
    adapter = place.adapters[which]
    place.open_registry().publish(adapter.path, adapter.manifest)


def register(place: Place, which: str, *, champion: int | None, promote: bool = True) -> None:
    place.open_registry().register(
        TASK,
        place.adapters[which].adapter_id,
        promote=promote,
        judged_champion=champion,
        reasons=("a test",),
        by="the test",
    )


def check_adapter(place: Place, which: str) -> bool:
    """Return whether an adapter exists; if so, every one of its files is what its manifest says."""
    adapter = place.adapters[which]
    key = adapter_key(adapter.adapter_id)
    stored = place.store.read(f"{key}/{MANIFEST_NAME}")
    if stored is None:
        return False
    assert stored.content == adapter.manifest.serialize()
    for entry in adapter.manifest.files:
        assert place.store.digest_key(f"{key}/{entry.name}") == entry.sha256, entry.name
    return True


def list_history(place: Place) -> list[str]:
    """Return a task's events in short, having checked that they are whole and lead to whole adapters."""
    registry = place.open_registry()
    if registry.ledger.read_state(TASK).head is None:
        return []
    events = registry.ledger.read_history(TASK)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert all(error is None for _, error in registry.verify_task(TASK))
    return [f"{event.action} v{event.version} -> v{event.champion_after}" for event in events]


def read_champion(place: Place) -> int | None:
    return place.open_registry().ledger.read_state(TASK).champion_version


def open_index(place: Place) -> Any:
    from lorry_registry.mlflow.index import MlflowIndex

    return MlflowIndex(f"sqlite:///{place.root / 'mlflow.db'}", place.root / "artifacts")


def reconcile(place: Place) -> list[str]:
    from lorry_components.steps.register.mlflow_publication import reconcile_task

    return reconcile_task(open_index(place), place.open_registry(), TASK)


def list_shown(place: Place) -> dict[str, str | None]:
    """Return which adapter each of MLflow's versions holds, by its files."""
    index = open_index(place)
    return {
        str(version.version): index.identify_version(version) for version in index.list_model_versions(TASK)
    }


def find_alias(place: Place) -> str | None:
    index = open_index(place)
    number = index.read_alias_versions(TASK).get("champion")
    return None if number is None else index.identify_version_number(TASK, number)
