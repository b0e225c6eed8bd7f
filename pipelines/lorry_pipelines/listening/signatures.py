"""Whether a delivery is fresh and from somebody who knows the secret.

MLflow's scheme: HMAC-SHA256 over ``ID.TIMESTAMP.BODY``, in base64 behind ``v1,``. Other senders sign alike,
in headers that begin with ``X-Lorry-`` instead of ``X-MLflow-``.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

SHORTEST_SECRET = 16
MOST_SECONDS_OLD = 300
_PREFIXES = ("x-mlflow-", "x-lorry-")
_VERSION = "v1"
_MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery whose signature is right.

    Attributes:
        id: What the sender calls it.
        sent_at: When it was signed, in seconds since 1970.
    """

    id: str
    sent_at: int


def sign_delivery(secret: str, delivery: str, sent_at: int, body: bytes) -> str:
    """Return the signature of a delivery, as its header has it."""
    content = f"{delivery}.{sent_at}.".encode() + body
    digest = hmac.new(secret.encode(), content, hashlib.sha256).digest()
    return f"{_VERSION},{base64.b64encode(digest).decode('ascii')}"


def check_delivery(secret: str, headers: Mapping[str, str], body: bytes, *, now: float) -> Delivery | None:
    """Return a delivery that is fresh and signed with the secret; None: it is not.

    Which of both is wrong is not told: that would help only somebody who tries.

    Args:
        secret: What both sides know.
        headers: The request's, by names in lower case.
        body: The request's body, as it was sent.
        now: In seconds since 1970.
    """
    prefix = next((each for each in _PREFIXES if f"{each}signature" in headers), _PREFIXES[0])
    given, delivery, moment = (
        headers.get(f"{prefix}{name}", "") for name in ("signature", "delivery-id", "timestamp")
    )
    is_formed = 0 < len(delivery) <= _MOST_CHARACTERS and moment.isascii() and moment.isdigit()
    if not is_formed or len(moment) > _MOST_CHARACTERS or not given.isascii():
        return None
    sent_at = int(moment)
    wanted = sign_delivery(secret, delivery, sent_at, body)
    # In time that does not depend on where they differ.
    if not hmac.compare_digest(wanted, given) or abs(now - sent_at) > MOST_SECONDS_OLD:
        return None
    return Delivery(delivery, sent_at)
