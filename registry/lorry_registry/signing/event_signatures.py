"""Signatures of the ledger's events: over an event's canonical bytes, without the signature itself.

A key signs the pre-authentication encoding of DSSE (https://github.com/secure-systems-lab/dsse) under a type
of its own, so that no signature of an adapter passes for one of an event, nor the other way round. An
identity signs through sigstore, whose bundle holds the certificate and the log's proof.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from lorry_registry.signing.keys import PublicKey, choose_hash, identify_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_EVENT_TYPE = "application/vnd.lorry.event+json"


class EventSignature(BaseModel):
    """A signature of an event: by a key, or by an identity.

    Attributes:
        key: The id of the key.
        value: What the key made of the event, in base 64 (ECDSA, DER).
        bundle: A sigstore bundle as JSON, if an identity signed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    value: str | None = None
    bundle: str | None = None

    @model_validator(mode="after")
    def _check_form(self) -> Self:
        if (self.key is None) != (self.value is None) or (self.key is None) == (self.bundle is None):
            raise ValueError("a signature has a key and a value, or a bundle")
        return self


def sign_with_key(content: bytes, key: "EllipticCurvePrivateKey") -> EventSignature:
    """Sign an event's bytes with a private key."""
    from cryptography.hazmat.primitives.asymmetric import ec

    public = key.public_key()
    value = key.sign(encode_event(content), ec.ECDSA(choose_hash(public)))
    return EventSignature(key=identify_key(public), value=base64.b64encode(value).decode("ascii"))


def is_signed_by_key(content: bytes, signature: EventSignature, trusted: Sequence[PublicKey]) -> bool:
    """Return whether one of the trusted keys made a signature over an event's bytes."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    for public in trusted:
        if public.id != signature.key:
            continue
        try:
            value = base64.b64decode(signature.value or "", validate=True)
            public.key.verify(value, encode_event(content), ec.ECDSA(choose_hash(public.key)))
        except (InvalidSignature, binascii.Error):
            return False
        return True
    return False


def encode_event(content: bytes) -> bytes:
    """Return what is signed for an event's bytes: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(_EVENT_TYPE), _EVENT_TYPE.encode(), len(content), content)
