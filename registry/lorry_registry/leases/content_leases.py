"""Leases on an adapter's files: garbage collection leaves alone those that a process needs.

The protocol, in which each side first raises its own flag and then looks for the other's::

    who is about to use an adapter          gc, about to remove one
    1. writes a lease                       1. writes a tombstone
    2. waits while there is a tombstone     2. looks for leases, and for names in the ledger;
    3. uses it; the ledger may name it         if there are any, it goes back to 4
    4. removes the lease                    3. removes the manifest, then the files
                                            4. removes the tombstone

On a store where every later read and listing sees a write, as in a folder and on S3, at least one of two
that meet sees the other. A reader leaves out step 2: what it downloads is verified, so the worst is an error.

A lease holds for :data:`LEASE_SECONDS` after it was last written, by the clock of the store, and a thread
renews it as long as its holder works. So the lease of a process that was killed ends by itself, at once if it
ran on the machine that looks. Only the store's clock counts; it must not jump by minutes.

Layout in the store::

    leases/<adapter>.<random>   {process}
    tombstones/<adapter>        {process, written}
"""

import contextlib
import logging
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, ValidationError

from lorry_registry.errors import ConflictError, LorryError, StoreError
from lorry_registry.files.digests import canonical_json
from lorry_registry.leases.process_names import ProcessName
from lorry_registry.stores import Store, StoredEntry

LEASES, TOMBSTONES = "leases", "tombstones"
LEASE_SECONDS = 900.0
# gc begins no deletion later than this after it has read the time for its tombstone. One that has begun may
# be sent again for several minutes; until the tombstone has lost its force all of that is over.
DELETING_SECONDS = 120.0
TOMBSTONE_SECONDS = 900.0

_RENEWAL_SECONDS = 300.0
_POLL_SECONDS = 0.3
_LOGGER = logging.getLogger(__name__)


class Holder(BaseModel):
    """What a lease or a tombstone says.

    Attributes:
        process: Whose it is.
        written: When it was written, by the clock of the store; leases have an age of their own.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    process: ProcessName
    written: datetime | None = None

    def serialize(self) -> bytes:
        """Return the canonical bytes."""
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def parse(cls, content: bytes) -> "Holder | None":
        """Return what a lease or tombstone says, or None if it is nothing that this version can read."""
        try:
            return cls.model_validate_json(content)
        except ValidationError:
            return None


class Lease:
    """A lease that is held.

    Args:
        store: The store.
        key: The lease's own key.
        renewed: When it was written, by the monotonic clock; 0: not yet.

    Attributes:
        is_kept: Whether it outlasts the block that holds it.
    """

    def __init__(self, store: Store, key: str, *, renewed: float = 0.0) -> None:
        self._store = store
        self._key = key
        self._renewed = renewed
        self.is_kept = False
        self._content = Holder(process=ProcessName.of_this_process()).serialize()

    def renew(self) -> None:
        """Write it again: it holds from now on.

        Raises:
            StoreError: The store cannot be written.
        """
        # Its time runs from before the write, so that it never ends earlier in the store than here.
        started = time.monotonic()
        self._store.overwrite(self._key, self._content)
        self._renewed = started

    def take_up(self) -> "Lease":
        """Return the same lease for another thread to release; its keeper may still look at this one."""
        return Lease(self._store, self._key, renewed=self._renewed)

    @property
    def is_fresh(self) -> bool:
        """Whether it holds for some time to come without being renewed."""
        return time.monotonic() - self._renewed < _RENEWAL_SECONDS

    def require_held(self) -> None:
        """Raise unless the lease still holds.

        Raises:
            StoreError: It could not be renewed in time; gc may have removed what it was for.
        """
        if time.monotonic() - self._renewed > LEASE_SECONDS - 2 * _POLL_SECONDS:
            raise StoreError(
                "the lease could not be renewed in time",
                where=self._store.locate(self._key),
                todo="check that the store can be written, and try again",
            )

    def release(self) -> None:
        """Remove it. One that cannot be removed ends by itself."""
        with contextlib.suppress(LorryError):
            self._store.delete(self._key)

    @contextlib.contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Renew it every few minutes."""
        ended = threading.Event()

        def renew_until_ended() -> None:
            while not ended.wait(_RENEWAL_SECONDS):
                try:
                    self.renew()
                except LorryError as error:
                    _LOGGER.warning("cannot renew a lease: %s", error)

        thread = threading.Thread(target=renew_until_ended, name="lorry-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()


class Leases:
    """The leases that this process takes in a store; threads may share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: defaultdict[str, list[Lease]] = defaultdict(list)

    @contextlib.contextmanager
    def hold(self, adapter_hex: str) -> Iterator[Lease]:
        """Hold a lease on an adapter, and wait until no gc is removing it.

        A lease that :meth:`keep` has kept is taken up again. It is released at the end, unless it is kept in
        the block; one that was taken up stays kept if the block fails, for another attempt.

        Raises:
            StoreError: The store cannot be written.
        """
        lease = self._take_kept(adapter_hex)
        is_new = lease is None
        if lease is None:
            lease = self._make(adapter_hex)
            lease.renew()
        try:
            with lease.kept_alive():
                if is_new:
                    self._wait_for_gc(adapter_hex)
                yield lease
        except BaseException:
            if is_new:
                lease.release()
            else:
                self.keep(adapter_hex, lease)
            raise
        if not lease.is_kept:
            lease.release()

    @contextlib.contextmanager
    def hold_for_reading(self, adapter_hex: str) -> Iterator[None]:
        """Hold a lease while an adapter is downloaded, if this user may write to the store."""
        lease = self._make(adapter_hex)
        try:
            lease.renew()
        except StoreError:
            # What is read is verified: without the lease gc can make reading fail, and no more than that.
            yield
            return
        try:
            with lease.kept_alive():
                yield
        finally:
            lease.release()

    def keep(self, adapter_hex: str, lease: Lease) -> None:
        """Keep a lease beyond its block: from an adapter's publication until the ledger names it."""
        lease.is_kept = True
        self._kept[adapter_hex].append(lease)

    def _take_kept(self, adapter_hex: str) -> Lease | None:
        # Each is taken by one thread only: pop is atomic.
        with contextlib.suppress(IndexError):
            lease = self._kept[adapter_hex].pop()
            if lease.is_fresh:
                return lease.take_up()
            lease.release()
        return None

    def _make(self, adapter_hex: str) -> Lease:
        return Lease(self._store, f"{LEASES}/{adapter_hex}.{uuid.uuid4().hex}")

    def _wait_for_gc(self, adapter_hex: str) -> None:
        key, warned = f"{TOMBSTONES}/{adapter_hex}", False
        # One that a later version wrote, and this one cannot read, has an end as well.
        deadline = time.monotonic() + TOMBSTONE_SECONDS
        while (stored := self._store.read(key)) is not None:
            is_late = time.monotonic() > deadline
            if is_late or is_over(Holder.parse(stored.content), self._store.read_clock()):
                return
            if not warned:
                _LOGGER.warning("waiting for lorry gc, which is removing an old copy: %s", key)
                warned = True
            time.sleep(_POLL_SECONDS)


def is_over(holder: Holder | None, now: datetime) -> bool:
    """Return whether a tombstone has lost its force: its gc has ended, or began too long ago.

    Args:
        holder: What it says; None: nothing that can be read.
        now: The time by the clock of the store.
    """
    if holder is None or holder.written is None:
        return False
    return holder.process.has_ended() or now - holder.written > timedelta(seconds=TOMBSTONE_SECONDS)


def is_lease_over(store: Store, entry: StoredEntry, now: datetime) -> bool:
    """Return whether a lease has ended: by its age, or with its process.

    Args:
        store: Where it is.
        entry: The lease.
        now: The time by the clock of the store.
    """
    if now - entry.modified > timedelta(seconds=LEASE_SECONDS):
        return True
    stored = store.read(entry.key)
    if stored is None:
        return True
    holder = Holder.parse(stored.content)
    return holder is not None and holder.process.has_ended()


class Tombstone:
    """gc's flag on an adapter that it is about to remove.

    Args:
        store: The store.
        adapter_hex: The adapter.
    """

    def __init__(self, store: Store, adapter_hex: str) -> None:
        self._store = store
        self._key = f"{TOMBSTONES}/{adapter_hex}"
        self._content = b""

    def try_raise(self, now: datetime) -> bool:
        """Write the tombstone; False if another gc has one here that is in force.

        Args:
            now: The time by the clock of the store, read before. It counts from then.

        Raises:
            StoreError: The store cannot be read or written.
        """
        self._content = Holder(process=ProcessName.of_this_process(), written=now).serialize()
        former = self._store.read(self._key)
        if former is not None and not is_over(Holder.parse(former.content), now):
            return False
        try:
            self._store.compare_and_swap(self._key, self._content, former.etag if former else None)
        except ConflictError:
            return False
        return True

    def lower(self) -> None:
        """Remove the tombstone, unless another gc has taken its place."""
        stored = self._store.read(self._key)
        if stored is not None and stored.content == self._content:
            self._store.delete(self._key)
