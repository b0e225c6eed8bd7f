"""Signs what was there before signatures were: a task's adapters, and its history up to now."""

from collections.abc import Iterator
from dataclasses import dataclass

from lorry_registry.errors import ConflictError, LorryError, UsageError
from lorry_registry.ledger.events import Event
from lorry_registry.ledger.ledger import Ledger
from lorry_registry.ledger.promotion import Version, list_versions
from lorry_registry.registry import Registry
from lorry_registry.text.users import name_user


@dataclass(frozen=True, slots=True)
class SignedVersion:
    """What became of one version.

    Attributes:
        version: The version.
        is_new: Whether it was signed now.
        problem: Why it could not be signed, if so.
    """

    version: Version
    is_new: bool
    problem: LorryError | None = None


def sign_versions(registry: Registry, task: str) -> Iterator[SignedVersion]:
    """Re-hash every adapter of a task and sign those that this key or identity has not signed.

    An adapter that is damaged is not signed, and does not keep the others from being signed.

    Raises:
        NotFoundError: No such task.
        StoreError: The history was changed.
        UsageError: There is no key to sign with.
    """
    _require_key(registry)
    for version in list_versions(_open_unjudged(registry).read_history(task)):
        try:
            manifest = registry.hash_stored(task, version.adapter_id)
            is_new = registry.trust.sign_adapter(
                manifest, registry.adapters.find_signatures(version.adapter_id)
            )
        except LorryError as error:
            yield SignedVersion(version, is_new=False, problem=error)
        else:
            yield SignedVersion(version, is_new=is_new)


def attest_history(registry: Registry, task: str, *, reason: str, by: str | None = None) -> Event | None:
    """Add a signed event that stands for the whole history up to now, unless that is signed as it is.

    The event names the digest of the one before it, which names the one before it, and so on: none of them
    can be changed any more without the key.

    Returns:
        The event; None if every event that has to be is signed by a trusted key.

    Raises:
        ConflictError: Another writer was first.
        NotFoundError: No such task.
        StoreError: The history was changed.
        UsageError: There is no key to sign with.
    """
    _require_key(registry)
    ledger = _open_unjudged(registry)
    state = ledger.require_state(task)
    events = ledger.read_history(task)
    assert state.head is not None
    if state.head.event.digest != events[-1].digest:
        raise ConflictError("another writer was first", where=task, todo="run it again")
    if registry.ledger.is_signed(state.head, events):
        return None
    last = list_versions(events)[-1]
    number, adapter_id = last.number, last.adapter_id
    if state.champion is not None:
        number, adapter_id = state.champion.version, state.champion.adapter_id
    return ledger.append(
        state,
        action="attest",
        adapter_id=adapter_id,
        version=number,
        promote=False,
        by=by or name_user(),
        reasons=(reason,),
        details={"events": len(events), "history": events[-1].digest},
    )


def _open_unjudged(registry: Registry) -> Ledger:
    # What is to be signed has no signature yet: it is held against itself, but against no policy.
    return Ledger(registry.store, trust=registry.trust.suspend_checks())


def _require_key(registry: Registry) -> None:
    if not registry.trust.is_signing:
        raise UsageError(
            "there is no key to sign with",
            where="LORRY_SIGNING_KEY",
            todo="set it to the file that lorry sign --generate-key writes, or to sigstore",
        )
    registry.trust.check_ready()
