"""Signatures: of adapters, in the form of the sigstore project's model-signing, and of the ledger's events.

:mod:`~lorry_registry.signing.signing_settings` says who is trusted and what is signed with. It comes from the
settings of each reader and writer; :mod:`~lorry_registry.signing.trust` applies it.
:mod:`~lorry_registry.signing.adapter_signatures` and :mod:`~lorry_registry.signing.event_signatures` make and
check the two kinds of signatures, with :mod:`~lorry_registry.signing.keys` or, without a key, through
:mod:`~lorry_registry.signing.keyless`. :mod:`~lorry_registry.signing.attestations` knows where they lie, and
:mod:`~lorry_registry.signing.rollback_guard` notices when an older state of a ledger is put back.

``cryptography``, model-signing and sigstore are imported when they are used; the extra ``signing`` brings
them.
"""

from lorry_registry.signing.signing_settings import SigningSettings
from lorry_registry.signing.trust import Trust

__all__ = ["SigningSettings", "Trust"]
