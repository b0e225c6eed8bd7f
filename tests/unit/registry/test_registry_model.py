"""The registry against a small model of it: whatever is done in whatever order, both say the same.

Writers are killed at random writes and races are lost on purpose; after each step the champion, the history,
the versions and every adapter are compared with what the model holds.
"""

import itertools
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lorry_registry.errors import ConflictError, NotFoundError
from lorry_registry.leases.content_leases import TOMBSTONES
from lorry_registry.maintenance.collection import Rules, plan_collection, sweep_store
from lorry_registry.maintenance.task_deletion import delete_task, restore_task
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore, Store

from fixtures.adapters import AdapterFolder, write_adapter
from fixtures.s3_server import BUCKET, QUICK, S3Server

TASKS = ("films", "reviews")
_WRITES = ("create", "compare_and_swap", "upload", "overwrite", "delete", "delete_all")

tasks = st.sampled_from(TASKS)
seeds = st.integers(0, 4)
# How many writes a process makes before it is killed, and whether it dies before or after the last of them.
deaths = st.tuples(st.integers(0, 6), st.booleans())


class Killed(BaseException):
    """Ends an operation as a kill would: no handler for errors sees it."""


class Mortal:
    """Kills whoever writes to a store, before or after a write."""

    def __init__(self, store: Store) -> None:
        self._left: int | None = None
        self._is_after = False
        for name in _WRITES:
            setattr(store, name, self._wrap(getattr(store, name)))

    def plan(self, death: tuple[int, bool] | None) -> None:
        self._left, self._is_after = death or (None, False)

    def _wrap(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            if self._left is None:
                return write(*arguments)
            self._left -= 1
            if self._left < 0 and not self._is_after:
                raise Killed
            result = write(*arguments)
            if self._left < 0:
                raise Killed
            return result

        return wrapped


@dataclass
class Model:
    """What the registry ought to hold of one task."""

    versions: list[str] = field(default_factory=list)
    champion: int | None = None
    reigns: list[int] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    is_deleted: bool = False

    def copy(self) -> "Model":
        return Model([*self.versions], self.champion, [*self.reigns], [*self.events], self.is_deleted)

    @property
    def shown(self) -> int | None:
        """The champion, unless the task is deleted."""
        return None if self.is_deleted else self.champion

    def delete(self) -> None:
        self.is_deleted = True
        self.events.append(f"delete {_name(self.champion or len(self.versions))} -> none")

    def restore(self) -> None:
        self.is_deleted = False
        self.events.append(f"restore {_name(self.champion or len(self.versions))} -> {_name(self.champion)}")

    def register(self, adapter_id: str, *, promote: bool) -> None:
        if adapter_id in self.versions:
            number = self.versions.index(adapter_id) + 1
            has_reigned = any(event.endswith(f"-> v{number}") for event in self.events)
            if promote and not has_reigned:
                self._move("promote", number)
            return
        self.versions.append(adapter_id)
        number = len(self.versions)
        if promote:
            self._move("register", number)
        else:
            self.events.append(f"register v{number} -> {_name(self.champion)}")

    def promote(self, number: int) -> None:
        self._move("promote", number)

    def rollback(self) -> None:
        self.reigns.pop()
        self.champion = self.reigns[-1]
        self.events.append(f"rollback v{self.champion} -> v{self.champion}")

    def withdraw(self) -> None:
        self.events.append(f"rollback v{self.champion} -> none")
        self.champion = None
        self.reigns.clear()

    def _move(self, action: str, number: int) -> None:
        self.champion = number
        self.reigns.append(number)
        self.events.append(f"{action} v{number} -> v{number}")


def _name(version: int | None) -> str:
    return "none" if version is None else f"v{version}"


class RegistryMachine(RuleBasedStateMachine):
    """Drives a registry and the model of it; a subclass of a test's own says where the store is."""

    open_store: Callable[[Path], Store]
    adapters: dict[tuple[str, int], AdapterFolder]

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="lorry-model-")
        store = type(self).open_store(Path(self._folder.name))
        self.mortal = Mortal(store)
        self.registry = Registry(store, Path(self._folder.name) / "cache")
        self.models = {task: Model() for task in TASKS}
        self.published: set[str] = set()

    def teardown(self) -> None:
        self._folder.cleanup()

    @rule(task=tasks, seed=seeds)
    def publish(self, task: str, seed: int) -> None:
        """Publishing again is harmless, so this is republishing as well."""
        adapter = self.adapters[task, seed]
        assert self.registry.publish(adapter.path, adapter.manifest) == adapter.adapter_id
        self.published.add(adapter.adapter_id)

    @rule(task=tasks, seed=seeds, death=deaths)
    def publish_and_die(self, task: str, seed: int, death: tuple[int, bool]) -> None:
        adapter = self.adapters[task, seed]
        self._die(death, lambda: self.registry.publish(adapter.path, adapter.manifest))
        try:
            self.registry.read_manifest(adapter.adapter_id)
        except NotFoundError:
            assert adapter.adapter_id not in self.published
        else:
            self.published.add(adapter.adapter_id)

    @rule(task=tasks, seed=seeds, promote=st.booleans())
    def register(self, task: str, seed: int, promote: bool) -> None:
        adapter_id, model = self.adapters[task, seed].adapter_id, self.models[task]
        if adapter_id not in self.published or model.is_deleted:
            with pytest.raises(NotFoundError):
                self._register(task, adapter_id, promote, model.champion)
            return
        event = self._register(task, adapter_id, promote, model.champion)
        model.register(adapter_id, promote=promote)
        assert event.version == model.versions.index(adapter_id) + 1

    @rule(task=tasks, seed=seeds, promote=st.booleans(), death=deaths)
    def register_and_die(self, task: str, seed: int, promote: bool, death: tuple[int, bool]) -> None:
        adapter_id = self.adapters[task, seed].adapter_id
        if adapter_id in self.published and not self.models[task].is_deleted:
            champion = self.models[task].champion
            self._move_and_die(
                task,
                death,
                lambda: self._register(task, adapter_id, promote, champion),
                lambda model: model.register(adapter_id, promote=promote),
            )

    @rule(task=tasks, seed=seeds, judged=st.integers(1, 5))
    def register_on_an_old_judgement(self, task: str, seed: int, judged: int) -> None:
        """Lose a race: the champion is another one than the gate saw."""
        adapter_id, model = self.adapters[task, seed].adapter_id, self.models[task]
        is_new = adapter_id in self.published and adapter_id not in model.versions
        if is_new and judged != model.champion and not model.is_deleted:
            with pytest.raises(ConflictError, match=f"but the gate compared with v{judged}"):
                self._register(task, adapter_id, True, judged)

    @precondition(lambda self: any(model.versions for model in self.models.values()))
    @rule(task=tasks, number=st.integers(1, 6), death=st.none() | deaths)
    def promote(self, task: str, number: int, death: tuple[int, bool] | None) -> None:
        model = self.models[task]

        def act() -> object:
            return self.registry.promote(task, number, reason="a rule", by="the machine")

        if number > len(model.versions) or model.is_deleted:
            with pytest.raises(NotFoundError):
                act()
        elif number == model.champion:
            with pytest.raises(ConflictError, match="it is already the champion"):
                act()
        else:
            self._move_and_die(task, death, act, lambda model: model.promote(number))

    @rule(task=tasks, death=st.none() | deaths)
    def rollback(self, task: str, death: tuple[int, bool] | None) -> None:
        def act() -> object:
            return self.registry.rollback(task, reason="a rule", by="the machine")

        if len(self.models[task].reigns) < 2 or self.models[task].is_deleted:
            with pytest.raises(NotFoundError):
                act()
        else:
            self._move_and_die(task, death, act, Model.rollback)

    @rule(task=tasks, death=st.none() | deaths)
    def withdraw(self, task: str, death: tuple[int, bool] | None) -> None:
        def act() -> object:
            return self.registry.withdraw(task, reason="a rule", by="the machine")

        if self.models[task].shown is None:
            with pytest.raises(NotFoundError):
                act()
        else:
            self._move_and_die(task, death, act, Model.withdraw)

    @rule(task=tasks, death=st.none() | deaths)
    def delete(self, task: str, death: tuple[int, bool] | None) -> None:
        model = self.models[task]

        def act() -> object:
            return delete_task(self.registry, task, reason="a rule", by="the machine")

        if not model.versions or model.is_deleted:
            with pytest.raises(NotFoundError):
                act()
        else:
            self._move_and_die(task, death, act, Model.delete)

    @rule(task=tasks, death=st.none() | deaths)
    def restore(self, task: str, death: tuple[int, bool] | None) -> None:
        model = self.models[task]

        def act() -> object:
            return restore_task(self.registry, task, reason="a rule", by="the machine")

        if not model.versions or not model.is_deleted:
            with pytest.raises((NotFoundError, ConflictError)):
                act()
        else:
            self._move_and_die(task, death, act, Model.restore)

    # The rest of a deleted task would go at once, since nothing is spared for its age here.
    @precondition(lambda self: not any(model.is_deleted for model in self.models.values()))
    @rule(death=st.none() | deaths)
    def collect(self, death: tuple[int, bool] | None) -> None:
        """All that a task names is young, or one of its last versions: gc takes none of it."""
        rules = Rules(10, timedelta())

        def act() -> None:
            sweep_store(self.registry, plan_collection(self.registry, rules), rules, by="the machine")

        if not self._die(death, act):
            # Whoever finds its tombstones sees that their process has ended; here that is this very one.
            for key in [*self.registry.store.list_keys(TOMBSTONES)]:
                self.registry.store.delete(key)
        # What no task names may be gone, and can be published again.
        for adapter in self.adapters.values():
            try:
                self.registry.read_manifest(adapter.adapter_id)
            except NotFoundError:
                assert not any(adapter.adapter_id in model.versions for model in self.models.values())
                self.published.discard(adapter.adapter_id)

    @rule(task=tasks, seed=seeds, others=st.integers(0, 4), wins=st.booleans())
    def race(self, task: str, seed: int, others: int, wins: bool) -> None:
        """Two writers read the same head. The second is served if the first left the champion alone."""
        mine, theirs = (self.adapters[task, each].adapter_id for each in (seed, others))
        model = self.models[task]
        if mine == theirs or not {mine, theirs} <= self.published or {mine, theirs} & set(model.versions):
            return
        if model.is_deleted:
            return
        champion = model.champion
        intruder = Registry(self.registry.store, self.registry.adapters.cache.folder)
        swap = self.registry.store.compare_and_swap
        pending = [theirs]

        def interfere(*arguments: Any) -> str:
            if pending:
                self._register(task, pending.pop(), wins, champion, intruder)
            return swap(*arguments)

        self.registry.store.compare_and_swap = interfere  # type: ignore[method-assign]
        try:
            if wins:
                with pytest.raises(ConflictError, match="the champion is now"):
                    self._register(task, mine, True, champion)
            else:
                self._register(task, mine, True, champion)
        finally:
            self.registry.store.compare_and_swap = swap  # type: ignore[method-assign]
        model.register(theirs, promote=wins)
        if not wins:
            model.register(mine, promote=True)

    @invariant()
    def says_the_same_as_the_model(self) -> None:
        known = {task: model for task, model in self.models.items() if model.versions}
        assert [
            (entry.task, entry.versions, entry.champion.version if entry.champion else None)
            for entry in self.registry.list_tasks()
        ] == [
            (task, len(model.versions), model.champion)
            for task, model in sorted(known.items())
            if not model.is_deleted
        ]
        for task, model in known.items():
            events = self.registry.ledger.read_history(task)
            assert _shorten(events) == model.events
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            found = list(self.registry.verify_task(task))
            assert [version.adapter_id for version, _ in found] == model.versions
            assert [error for _, error in found if error] == []
            if model.shown is None:
                with pytest.raises(NotFoundError):
                    self.registry.resolve(task)
            else:
                assert self.registry.ledger.read_state(task).champion_version == model.shown
                assert self.registry.resolve(task).adapter_id == model.versions[model.shown - 1]

    def _register(
        self, task: str, adapter_id: str, promote: bool, judged: int | None, registry: Registry | None = None
    ) -> Any:
        return (registry or self.registry).register(
            task, adapter_id, promote=promote, judged_champion=judged, reasons=(), by="the machine"
        )

    def _die(self, death: tuple[int, bool] | None, act: Callable[[], object]) -> bool:
        """Do something until its writer is killed; return whether it came to its end."""
        self.mortal.plan(death)
        try:
            act()
        except Killed:
            return False
        finally:
            self.mortal.plan(None)
        return True

    def _move_and_die(
        self,
        task: str,
        death: tuple[int, bool] | None,
        act: Callable[[], object],
        apply: Callable[[Model], object],
    ) -> None:
        """Move the ledger; of a killed writer it is only known that all of it happened, or nothing."""
        is_done = self._die(death, act)
        moved = self.models[task].copy()
        apply(moved)
        state = self.registry.ledger.read_state(task)
        events = _shorten(self.registry.ledger.read_history(task)) if state.head else []
        assert events in ([moved.events] if is_done else [self.models[task].events, moved.events])
        if events == moved.events:
            self.models[task] = moved


def _shorten(events: list[Any]) -> list[str]:
    return [f"{event.action} v{event.version} -> {_name(event.champion_after)}" for event in events]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], AdapterFolder]:
    root = tmp_path_factory.mktemp("adapters")
    return {
        (task, seed): write_adapter(root / f"{task}-{seed}", task=task, seed=seed)
        for task, seed in itertools.product(TASKS, range(5))
    }


def _run(
    adapters: dict[tuple[str, int], AdapterFolder], opener: Callable[[Path], Store], examples: int, steps: int
) -> None:
    machine = type("Machine", (RegistryMachine,), {"open_store": staticmethod(opener), "adapters": adapters})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
def test_a_registry_in_a_folder_is_like_its_model(adapters: dict[tuple[str, int], AdapterFolder]) -> None:
    _run(adapters, lambda folder: LocalStore(folder / "store"), 40, 25)


@pytest.fixture
def open_on_s3(s3_environment: S3Server) -> Iterator[Callable[[Path], Store]]:
    from lorry_registry.stores.s3_store import S3Store

    shared: list[Any] = []

    def open_one(_: Path) -> Store:
        store = S3Store(f"s3://{BUCKET}/{uuid.uuid4().hex}/store", retries=QUICK)
        # A client takes a tenth of a second to make, and serves them all.
        shared.append(store._client)
        store.__dict__["_client"] = shared[0]
        return store

    yield open_one


@pytest.mark.exhaustive
def test_a_registry_on_s3_is_like_its_model(
    adapters: dict[tuple[str, int], AdapterFolder], open_on_s3: Callable[[Path], Store]
) -> None:
    _run(adapters, open_on_s3, 6, 20)
