"""The plan of a collection: what can be removed from a store, and what stays. Planning changes nothing."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from lorry_registry.adapters.stored_adapters import adapter_hex
from lorry_registry.errors import LorryError, StoreError
from lorry_registry.leases.content_leases import LEASE_SECONDS, TOMBSTONE_SECONDS, TOMBSTONES, Holder, is_over
from lorry_registry.maintenance.collection.collection_findings import Finding, Kept, Kind, Plan, Rules
from lorry_registry.maintenance.collection.inventory import (
    Stored,
    find_newest,
    list_adapters,
    list_checkpoints,
    list_leases,
    name_leased,
)
from lorry_registry.maintenance.collection.marks import TaskMarks, mark_task
from lorry_registry.registry import Registry
from lorry_registry.stores import Store, StoredEntry
from lorry_registry.stores.concurrency import map_concurrent
from lorry_registry.tasks.task_spec import TASK_NAME

# Where writers of this registry may leave something unfinished.
_WRITTEN = ("adapters", "checkpoints")
# No write takes this long.
_LONGEST_WRITE = timedelta(days=1)
_LEASE = timedelta(seconds=LEASE_SECONDS)


@dataclass(frozen=True, slots=True)
class _Name:
    """Which version of which task an adapter is, and what the task's ledger says of it."""

    task: str
    version: int
    marks: TaskMarks


def plan_collection(registry: Registry, rules: Rules) -> Plan:
    """Find what can be removed.

    An unreadable ledger keeps every adapter that no other ledger names: it may be one of its own.

    Args:
        registry: The registry.
        rules: What stays.

    Raises:
        StoreError: The store cannot be listed.
    """
    store = registry.store
    plan = Plan(now=store.read_clock())
    # First what is there, then who names it: what is published meanwhile is not seen, or is seen to be named.
    adapters, strange = list_adapters(store)
    leases, held = list_leases(store, plan.now)
    plan.strange += strange
    names, uncertain = _read_names(registry, rules, plan)
    touched = _date_leases(leases)
    for name, stored in sorted(adapters.items()):
        young = _is_younger(find_newest((stored.newest, touched.get(name))), rules.grace, plan.now)
        reason = _find_reason(names.get(name), name in held, young, uncertain)
        if reason is None:
            plan.findings.append(_find_adapter(registry, name, stored, names.get(name)))
        else:
            plan.kept.append(_keep(name, stored, names.get(name), reason))
            if name in names and not stored.has_manifest and names[name].version in names[name].marks.kept:
                plan.problems[f"{names[name].task} v{names[name].version}"] = StoreError(
                    "its manifest is missing from the store",
                    where=store.locate(f"adapters/{name}"),
                    todo=f"restore it from a backup; see: lorry verify {names[name].task}",
                )
    plan.findings.sort(
        key=lambda each: (each.kind != "version", each.task or "", each.version or 0, each.name)
    )
    plan.kept.sort(key=lambda each: (each.task or "", each.version or 0, each.adapter_id))
    plan.findings += _find_checkpoints(store, rules, plan.now)
    plan.findings += _find_leases(leases, held, rules, plan.now)
    plan.findings += _find_tombstones(store, plan.now)
    try:
        plan.findings += _find_unfinished(store, rules, plan.now)
    except StoreError as error:
        # The permission to list uploads is one that nothing else needs.
        plan.problems["unfinished uploads"] = error
    return plan


def _read_names(registry: Registry, rules: Rules, plan: Plan) -> tuple[dict[str, _Name], str]:
    """Return what the ledgers say of each adapter, and the tasks whose ledger is unreadable."""
    names: dict[str, _Name] = {}
    unreadable: list[str] = []
    tasks = [task for task in registry.store.list_children("tasks") if re.fullmatch(TASK_NAME, task)]

    def mark(task: str) -> TaskMarks | LorryError | None:
        try:
            return _mark(registry, task, rules, plan.now)
        except LorryError as error:
            return error

    found = map_concurrent(mark, tasks, registry.store.concurrency)
    for task, marks in zip(tasks, found, strict=True):
        if isinstance(marks, LorryError):
            plan.problems[f"the ledger of {task}"] = marks
            unreadable.append(task)
        elif marks is not None:
            for version in marks.versions:
                names[adapter_hex(version.adapter_id)] = _Name(task, version.number, marks)
    return names, ", ".join(unreadable)


def _mark(registry: Registry, task: str, rules: Rules, now: datetime) -> TaskMarks | None:
    state = registry.ledger.read_state(task)
    if state.head is None:
        # A server may still name a folder that is empty.
        if next(registry.store.list_keys(f"tasks/{task}"), None) is None:
            return None
        raise StoreError(
            "the head is missing, and something else is there",
            where=registry.store.locate(f"tasks/{task}"),
            todo="restore the head from a backup, or remove what is there if it is no ledger",
        )
    return mark_task(state, registry.ledger.read_history(task), rules, now)


def _find_reason(name: _Name | None, is_held: bool, is_young: bool, uncertain: str) -> str | None:
    """Return why an adapter stays, or None."""
    if name is not None and name.version in name.marks.kept:
        return name.marks.kept[name.version]
    if is_held:
        return "held by a lease: it is being written or read"
    if is_young:
        return "younger than the grace period"
    if name is None and uncertain:
        return f"the ledger of {uncertain} cannot be read, and may name it"
    return None


def _find_adapter(registry: Registry, name: str, stored: Stored, named: _Name | None) -> Finding:
    kind: Kind
    if named is not None:
        kind, reason = "version", named.marks.reason
    elif stored.has_manifest:
        kind, reason = "adapter", "it was published, but no task has it"
    else:
        kind, reason = "files", "they have no manifest: a publication or a removal was cut short"
    return Finding(
        kind=kind,
        name=f"adapters/{name}",
        reason=reason,
        size=stored.size,
        keys=stored.in_order,
        adapter_id=f"sha256:{name}",
        task=named.task if named else find_task(registry, f"sha256:{name}", stored.has_manifest),
        version=named.version if named else None,
        written=stored.newest,
    )


def find_task(registry: Registry, adapter_id: str, has_manifest: bool) -> str | None:
    """Return the task for which an adapter was trained; None if no sound manifest says it."""
    try:
        return registry.read_manifest(adapter_id).task if has_manifest else None
    except StoreError:
        raise
    except LorryError:
        return None


def _keep(name: str, stored: Stored, named: _Name | None, reason: str) -> Kept:
    task, version = (named.task, named.version) if named else (None, None)
    return Kept(f"sha256:{name}", reason, stored.size, task, version)


def _date_leases(leases: list[StoredEntry]) -> Mapping[str, datetime]:
    touched: dict[str, datetime] = {}
    for lease in leases:
        name = name_leased(lease)
        touched[name] = max(touched.get(name, lease.modified), lease.modified)
    return touched


def _is_younger(moment: datetime | None, age: timedelta, now: datetime) -> bool:
    return moment is not None and now - moment <= age


def _find_checkpoints(store: Store, rules: Rules, now: datetime) -> Iterator[Finding]:
    for name, stored in sorted(list_checkpoints(store).items()):
        if not _is_younger(stored.newest, rules.grace, now):
            yield Finding(
                "checkpoints",
                f"checkpoints/{name}",
                "no training has written them within the grace period",
                stored.size,
                stored.in_order,
                written=stored.newest,
            )


def _find_leases(
    leases: list[StoredEntry], held: frozenset[str], rules: Rules, now: datetime
) -> Iterator[Finding]:
    for lease in leases:
        # A publication's lease counts towards the age of its adapter, so it stays as long as that matters.
        if name_leased(lease) not in held and not _is_younger(lease.modified, max(rules.grace, _LEASE), now):
            yield Finding(
                "lease", lease.key, "its holder has ended", lease.size, (lease.key,), written=lease.modified
            )


def _find_tombstones(store: Store, now: datetime) -> Iterator[Finding]:
    for entry in store.list_entries(TOMBSTONES):
        stored = store.read(entry.key)
        is_old = now - entry.modified > timedelta(seconds=TOMBSTONE_SECONDS)
        if stored is not None and (is_old or is_over(Holder.parse(stored.content), now)):
            yield Finding(
                "tombstone", entry.key, "its gc has ended", entry.size, (entry.key,), written=entry.modified
            )


def _find_unfinished(store: Store, rules: Rules, now: datetime) -> Iterator[Finding]:
    for write in store.list_unfinished(_WRITTEN):
        if not _is_younger(write.modified, max(rules.grace, _LONGEST_WRITE), now):
            yield Finding(
                "upload", write.name, "it was never finished", write.size, (), written=write.modified
            )
