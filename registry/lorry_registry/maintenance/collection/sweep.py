"""Removes what a plan found, after looking again: what has come into use since stays.

For each adapter: a tombstone, then leases, then the ledger of its task, then an event that says what is
removed, then the manifest (from here on there is no adapter), then what vouches for it, then the files, and
the tombstone at last. A kill in between leaves an adapter whole or absent; files without a manifest go with
the next collection.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from pydantic import JsonValue

from lorry_registry.adapters.stored_adapters import adapter_hex
from lorry_registry.errors import ConflictError, LorryError, StoreError
from lorry_registry.leases.content_leases import DELETING_SECONDS, Holder, Tombstone, is_over
from lorry_registry.ledger.events import Event
from lorry_registry.ledger.ledger import TaskState
from lorry_registry.ledger.promotion import find_collection
from lorry_registry.maintenance.collection.collection_findings import Finding, Plan, Rules, Sweep
from lorry_registry.maintenance.collection.inventory import Stored, list_adapter, list_leases
from lorry_registry.maintenance.collection.marks import mark_task
from lorry_registry.manifest import MANIFEST_NAME
from lorry_registry.registry import Registry
from lorry_registry.signing.attestations import attestations_key
from lorry_registry.stores import UnfinishedWrite
from lorry_registry.stores.concurrency import map_concurrent
from lorry_registry.text.sizes import format_size
from lorry_registry.text.users import name_user

_A = TypeVar("_A")
_B = TypeVar("_B")
# So many that a listing serves several, so few that all are removed long before a tombstone is over.
_BATCH = 20
_ATTEMPTS = 10
_ADAPTERS = ("version", "adapter", "files")


def sweep_store(
    registry: Registry,
    plan: Plan,
    rules: Rules,
    *,
    by: str | None = None,
    tell: Callable[[Finding], None] = lambda _: None,
) -> Sweep:
    """Remove what a plan found.

    Args:
        registry: The registry.
        plan: What was found.
        rules: What stays; the same as for the plan.
        by: Who acts; the user's name by default.
        tell: Called with each thing that was removed.

    Returns:
        What was removed, and what was not. A batch that the store refuses does not stop the others.
    """
    sweep = Sweep()
    sweeper = _Sweeper(registry, rules, by or name_user(), sweep, tell)
    adapters = [finding for finding in plan.findings if finding.kind in _ADAPTERS]
    for start in range(0, len(adapters), _BATCH):
        batch = adapters[start : start + _BATCH]
        with sweeper.reporting(f"{batch[0].name} to {batch[-1].name}"):
            sweeper.remove_adapters(batch)
    for finding in plan.findings:
        if finding.kind not in _ADAPTERS:
            with sweeper.reporting(finding.name):
                sweeper.remove_other(finding)
    return sweep


class _Sweeper:
    def __init__(
        self, registry: Registry, rules: Rules, by: str, sweep: Sweep, tell: Callable[[Finding], None]
    ) -> None:
        self._registry = registry
        self._store = registry.store
        self._rules = rules
        self._by = by
        self._sweep = sweep
        self._tell = tell

    def _map(self, action: Callable[[_A], _B], items: Iterable[_A]) -> list[_B]:
        return list(map_concurrent(action, items, self._store.concurrency))

    @contextlib.contextmanager
    def reporting(self, name: str) -> Iterator[None]:
        try:
            yield
        except LorryError as error:
            self._sweep.problems[name] = error

    # Adapters

    def remove_adapters(self, findings: Sequence[Finding]) -> None:
        with contextlib.ExitStack() as tombstones:
            started, now = time.monotonic(), self._store.read_clock()
            raised: list[Tombstone] = []
            tombstones.callback(lambda: self._map(Tombstone.lower, raised))

            def try_raise(finding: Finding) -> bool:
                tombstone = Tombstone(self._store, _name(finding))
                if not tombstone.try_raise(now):
                    self._spare(finding, "another gc is removing it")
                    return False
                raised.append(tombstone)
                return True

            are_ours = self._map(try_raise, findings)
            ours = [finding for finding, is_ours in zip(findings, are_ours, strict=True) if is_ours]
            self._delete(self._record(self._look_again(ours)), started)

    def _look_again(self, findings: Sequence[Finding]) -> list[Finding]:
        """Return what no process has begun to use, with the keys that are there now."""
        _, held = list_leases(self._store, self._store.read_clock())
        present: list[Finding] = []
        found = self._map(lambda finding: list_adapter(self._store, _name(finding)), findings)
        for finding, stored in zip(findings, found, strict=True):
            if _name(finding) in held:
                self._spare(finding, "it came into use")
            elif not stored.keys:
                self._spare(finding, "another gc has removed it")
            elif _is_renewed(finding, stored):
                self._spare(finding, "it was written again")
            else:
                present.append(replace(finding, keys=stored.in_order, size=stored.size))
        return present

    def _record(self, findings: Sequence[Finding]) -> list[Finding]:
        """Look at the ledgers again, and record there what will be removed; return what may be."""
        tasks: defaultdict[str, list[Finding]] = defaultdict(list)
        ready: list[Finding] = []
        for finding in findings:
            if finding.task is None:
                # Nothing can register it: it has no manifest that says for which task it is.
                ready.append(finding)
            else:
                tasks[finding.task].append(finding)
        for task, group in tasks.items():
            with self.reporting(f"the ledger of {task}"):
                ready += self._record_task(task, group)
        return ready

    def _record_task(self, task: str, findings: Sequence[Finding]) -> list[Finding]:
        ledger = self._registry.ledger
        for _ in range(_ATTEMPTS):
            state = ledger.read_state(task)
            if state.head is None:
                return list(findings)
            events = ledger.read_history(task)
            marks = mark_task(state, events, self._rules, self._store.read_clock())
            numbers = {adapter_hex(version.adapter_id): version.number for version in marks.versions}
            kept = [finding for finding in findings if numbers.get(_name(finding)) in marks.kept]
            going = [finding for finding in findings if finding not in kept]
            versions = {
                numbers[_name(finding)]: finding
                for finding in going
                if _name(finding) in numbers and _is_news(finding, numbers[_name(finding)], events)
            }
            try:
                self._append_event(state, versions, marks.reason)
            except ConflictError:
                continue
            for finding in kept:
                self._spare(finding, f"it came into use: {marks.kept[numbers[_name(finding)]]}")
            return going
        for finding in findings:
            self._spare(finding, "its task kept changing")
        return []

    def _append_event(self, state: TaskState, versions: Mapping[int, Finding], reason: str) -> None:
        if not versions:
            return
        newest, size = max(versions), sum(finding.size for finding in versions.values())
        self._registry.ledger.append(
            state,
            action="collect",
            adapter_id=versions[newest].adapter_id or "",
            version=newest,
            promote=False,
            by=self._by,
            reasons=(f"{reason}: {format_size(size)} freed",),
            details={"versions": list[JsonValue](sorted(versions)), "bytes": size},
        )

    def _delete(self, findings: Sequence[Finding], started: float) -> None:
        manifests = [key for finding in findings for key in finding.keys if key.endswith(f"/{MANIFEST_NAME}")]
        files = [key for finding in findings for key in finding.keys if key not in set(manifests)]
        # Signatures and provenance lie apart; what a kill leaves of them goes with the files that are left.
        beside = self._map(
            lambda finding: list(self._store.list_keys(attestations_key(_name(finding)))), findings
        )
        for keys in (manifests, [key for listed in beside for key in listed], files):
            if time.monotonic() - started > DELETING_SECONDS:
                raise StoreError(
                    "the store takes too long; what is left goes next time",
                    where=self._store.address,
                    todo="run the same command again",
                )
            self._store.delete_all(keys)
        for finding in findings:
            self._note(finding)

    # Everything else

    def remove_other(self, finding: Finding) -> None:
        if finding.kind == "upload":
            assert finding.written is not None
            self._store.remove_unfinished(UnfinishedWrite(finding.name, finding.size, finding.written))
        elif finding.kind == "checkpoints":
            if not self._remove_checkpoints(finding):
                return
        elif finding.kind == "tombstone":
            stored = self._store.read(finding.name)
            holder = Holder.parse(stored.content) if stored else None
            # Another gc may have put its own in this place; an unreadable one was found by its age.
            if stored is None or (holder and not is_over(holder, self._store.read_clock())):
                return
            self._store.delete(finding.name)
        else:
            self._store.delete_all(finding.keys)
        self._note(finding)

    def _remove_checkpoints(self, finding: Finding) -> bool:
        present = {entry.key: entry for entry in self._store.list_entries(finding.name)}
        assert finding.written is not None
        if any(entry.modified > finding.written for entry in present.values()):
            self._spare(finding, "its training goes on")
            return False
        # One after the other: what says that a checkpoint is complete goes first.
        for key in finding.keys:
            self._store.delete(key)
        return True

    def _spare(self, finding: Finding, reason: str) -> None:
        self._sweep.spared.append((finding, reason))

    def _note(self, finding: Finding) -> None:
        self._sweep.removed.append(finding)
        self._tell(finding)


def _name(finding: Finding) -> str:
    return adapter_hex(finding.adapter_id or "")


def _is_renewed(finding: Finding, stored: Stored) -> bool:
    # Times may be as coarse as a second: a manifest that has appeared tells as much.
    is_published = stored.has_manifest and finding.kind == "files"
    newest, before = stored.newest, finding.written
    return is_published or (newest is not None and before is not None and newest > before)


def _is_news(finding: Finding, number: int, events: Sequence[Event]) -> bool:
    """Return whether the history does not say yet that a version is gone: what a kill left needs no event."""
    has_manifest = any(key.endswith(f"/{MANIFEST_NAME}") for key in finding.keys)
    return has_manifest or find_collection(events, number) is None
