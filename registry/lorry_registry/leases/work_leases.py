"""Leases on work: of several that would retrain the same task, one does it, and no more than one.

A lease is one document for each task, which moves by compare-and-swap: in a folder as well as on S3. Who
takes it writes its process, the time until which it holds by the clock of the store, and a token that is one
higher than the last. It renews the lease as long as it works, and gives it back at the end. One that was not
renewed in time, or whose process is known to have ended, may be taken by the next; so the work of a
killed process is finished by the next one.

A holder that was only slow must not write after that. So it leaves its token with its run (a fence) before
the run begins, and the step that registers an adapter checks that it is still the lease's token.
Between this look and the write to the ledger there is an instant in which a lease may pass on; the ledger's
own compare-and-swap is what lets only one of two become the champion even then.

Layout in the store::

    work/<task>.json               {token, process, until, run}
    runs/<run>/fences/<task>.json  {token}
"""

import contextlib
import logging
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, ValidationError

from lorry_registry.errors import ConflictError, LorryError, StoreError
from lorry_registry.files.digests import canonical_json
from lorry_registry.leases.process_names import ProcessName
from lorry_registry.stores import Store

WORK_SECONDS = 900.0
"""How long a lease holds after it was last renewed."""

_RENEWAL_SECONDS = 240.0
_ATTEMPTS = 10
_FOLDER = "work"
_LOGGER = logging.getLogger(__name__)


class WorkState(BaseModel):
    """What the document of a lease says.

    Attributes:
        token: How often it was taken.
        process: Who holds it; None: it was given back.
        since: When it was taken, by the clock of the store.
        until: When it ends, unless it is renewed.
        is_half_done: Whether it was given back before the work was done.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    token: int
    process: ProcessName | None = None
    since: datetime
    until: datetime
    is_half_done: bool = False

    @property
    def is_unfinished(self) -> bool:
        """Whether there may be work to finish, once no process holds it."""
        return self.process is not None or self.is_half_done

    def is_held(self, now: datetime) -> bool:
        """Return whether a process holds it.

        Args:
            now: The time by the clock of the store.
        """
        return self.process is not None and now <= self.until and not self.process.has_ended()

    def describe_holder(self) -> str:
        """Return who holds it since when, in words."""
        if self.process is None:
            return "no process"
        return f"process {self.process.number} on {self.process.host}, since {self.since:%Y-%m-%d %H:%M} UTC"


class _Fence(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    token: int


class WorkLease:
    """A lease on a task that this process holds.

    Args:
        store: Where it is.
        task: The task.
        state: What it says.
        etag: The tag of that document.
        follows_unfinished: Whether the last holder never gave it back, or before its work was done.

    Attributes:
        is_half_done: Whether its next holder has to look for work to finish.
    """

    def __init__(
        self, store: Store, task: str, state: WorkState, etag: str, *, follows_unfinished: bool
    ) -> None:
        self.task = task
        self.follows_unfinished = follows_unfinished
        self.is_half_done = False
        self._store = store
        self._state = state
        self._etag = etag
        self._lock = threading.Lock()

    @property
    def token(self) -> int:
        """How often the lease was taken."""
        return self._state.token

    def renew(self) -> None:
        """Let it hold from now on.

        Raises:
            ConflictError: It was not renewed in time, and another process has taken it.
            StoreError: The store cannot be read or written.
        """
        with self._lock:
            until = self._store.read_clock() + timedelta(seconds=WORK_SECONDS)
            self._write(self._state.model_copy(update={"until": until}))

    def release(self) -> None:
        """Give it back; one that cannot be given back, or is another process's now, ends by itself."""
        with self._lock, contextlib.suppress(LorryError):
            self._write(self._state.model_copy(update={"process": None, "is_half_done": self.is_half_done}))

    def fence(self, run: str) -> None:
        """Leave its token with a run: what the run registers counts only as long as this lease is held.

        Raises:
            StoreError: The store cannot be written.
        """
        self._store.replace(_find_fence(run, self.task), canonical_json({"token": self.token}))

    def _write(self, state: WorkState) -> None:
        self._etag = self._store.compare_and_swap(_find_key(self.task), _serialize(state), self._etag)
        self._state = state


def take_lease(store: Store, task: str) -> WorkLease | WorkState:
    """Take the lease on a task, unless another process holds it.

    Returns:
        The lease, or what that of another process says.

    Raises:
        StoreError: The store cannot be read or written, or the lease is of a later Lorry.
    """
    key = _find_key(task)
    for _ in range(_ATTEMPTS):
        stored = store.read(key)
        former = _parse(stored.content, store.locate(key)) if stored is not None else None
        now = store.read_clock()
        if former is not None and former.is_held(now):
            return former
        state = WorkState(
            token=former.token + 1 if former is not None else 1,
            process=ProcessName.of_this_process(),
            since=now,
            until=now + timedelta(seconds=WORK_SECONDS),
        )
        try:
            etag = store.compare_and_swap(key, _serialize(state), stored.etag if stored is not None else None)
        except ConflictError:
            # Another process was faster, and holds it now, or has given it back already.
            continue
        unfinished = former is not None and former.is_unfinished
        return WorkLease(store, task, state, etag, follows_unfinished=unfinished)
    raise StoreError(
        "others take and give back its lease all the time", where=store.locate(key), todo="try again later"
    )


def is_unfinished(store: Store, task: str) -> bool:
    """Return whether the last process that worked on a task ended before the work was done.

    Raises:
        StoreError: The store cannot be read, or the lease is of a later Lorry.
    """
    key = _find_key(task)
    stored = store.read(key)
    if stored is None:
        return False
    state = _parse(stored.content, store.locate(key))
    return state.is_unfinished and not state.is_held(store.read_clock())


@contextlib.contextmanager
def keep_leases(leases: Sequence[WorkLease]) -> Iterator[None]:
    """Renew leases every few minutes, and give them back at the end; half done, if it ends by an error."""
    ended = threading.Event()

    def renew_until_ended() -> None:
        while not ended.wait(_RENEWAL_SECONDS):
            for lease in leases:
                try:
                    lease.renew()
                except LorryError as error:
                    _LOGGER.warning("the lease on %s cannot be renewed: %s", lease.task, error)

    thread = threading.Thread(target=renew_until_ended, name="lorry-work-leases", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        for lease in leases:
            lease.is_half_done = True
        raise
    finally:
        ended.set()
        for lease in leases:
            lease.release()


def check_fence(store: Store, run: str, task: str) -> None:
    """Refuse what a run would write for a task, if another process took the work over.

    A run that was started without a lease has no fence, and is not refused.

    Raises:
        ConflictError: It was taken over.
        StoreError: The store cannot be read.
    """
    stored = store.read(_find_fence(run, task))
    if stored is None:
        return
    key = _find_key(task)
    lease = store.read(key)
    token = _Fence.model_validate_json(stored.content).token
    present = _parse(lease.content, store.locate(key)) if lease is not None else None
    if present is None or present.token != token:
        holder = f"now held by {present.describe_holder()}" if present is not None else "now held by no one"
        raise ConflictError(
            f"lease expired; {holder}",
            where=task,
            todo="let that run end, and look at: lorry stale",
        )


def _parse(content: bytes, where: str) -> WorkState:
    try:
        return WorkState.model_validate_json(content)
    except ValidationError as error:
        raise StoreError(
            "it is no lease that this version of lorry can read", where=where, todo="upgrade lorry"
        ) from error


def _serialize(state: WorkState) -> bytes:
    return canonical_json(state.model_dump(mode="json"))


def _find_key(task: str) -> str:
    return f"{_FOLDER}/{task}.json"


def _find_fence(run: str, task: str) -> str:
    return f"runs/{run}/fences/{task}.json"
