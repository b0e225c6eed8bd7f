"""An inventory of a store, with the age of each object."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from lorry_registry.leases.content_leases import LEASES, is_lease_over
from lorry_registry.manifest import MANIFEST_NAME
from lorry_registry.stores import Store, StoredEntry

_ADAPTERS = "adapters"
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True)
class Stored:
    """Everything below one part of a key.

    Attributes:
        keys: All keys.
        size: Their bytes.
        newest: When the newest of them was written.
    """

    keys: list[str] = field(default_factory=list)
    size: int = 0
    newest: datetime | None = None

    def add(self, entry: StoredEntry) -> None:
        """Count a key."""
        self.keys.append(entry.key)
        self.size += entry.size
        self.newest = entry.modified if self.newest is None else max(self.newest, entry.modified)

    @property
    def has_manifest(self) -> bool:
        """Whether it is an adapter, and not only files of one."""
        return any(key.endswith(f"/{MANIFEST_NAME}") for key in self.keys)

    @property
    def in_order(self) -> tuple[str, ...]:
        """The keys in the order in which they are removed: what says that the others are complete first."""
        return tuple(
            sorted(self.keys, key=lambda key: (not key.endswith(f"/{MANIFEST_NAME}"), key.count("/"), key))
        )


def list_adapters(store: Store) -> tuple[dict[str, Stored], list[str]]:
    """Return what lies below the name of each adapter, and keys below ``adapters/`` that are none of ours."""
    found, strange = _group(store, _ADAPTERS)
    for name in [name for name in found if not _HEX.fullmatch(name)]:
        strange += found.pop(name).keys
    return found, strange


def list_adapter(store: Store, name: str) -> Stored:
    """Return what lies below the name of one adapter."""
    stored = Stored()
    for entry in store.list_entries(f"{_ADAPTERS}/{name}"):
        stored.add(entry)
    return stored


def list_checkpoints(store: Store) -> dict[str, Stored]:
    """Return what lies below the name of each training below ``checkpoints/``."""
    return _group(store, "checkpoints")[0]


def list_leases(store: Store, now: datetime) -> tuple[list[StoredEntry], frozenset[str]]:
    """Return all leases, and the adapters on which one of them is held.

    Args:
        store: The store.
        now: The time by its clock.
    """
    entries = list(store.list_entries(LEASES))
    held = {name_leased(entry) for entry in entries if not is_lease_over(store, entry, now)}
    return entries, frozenset(held)


def name_leased(entry: StoredEntry) -> str:
    """Return the adapter that a lease is on."""
    return entry.key.rpartition("/")[2].partition(".")[0]


def _group(store: Store, prefix: str) -> tuple[dict[str, Stored], list[str]]:
    found: defaultdict[str, Stored] = defaultdict(Stored)
    strange: list[str] = []
    for entry in store.list_entries(prefix):
        name, slash, _ = entry.key.removeprefix(f"{prefix}/").partition("/")
        if slash:
            found[name].add(entry)
        else:
            strange.append(entry.key)
    return dict(found), strange


def find_newest(moments: Iterable[datetime | None]) -> datetime | None:
    """Return the latest of some moments, or None if there is none."""
    return max((moment for moment in moments if moment is not None), default=None)
