"""Signing as an identity, without a key: through sigstore, where there is a network.

A workload's own credential is used where there is one (GitHub Actions, Google Cloud and others that sigstore
detects). Otherwise a person at a terminal logs in with a browser; a step without either fails at once,
and does not wait for a browser.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lorry_registry.errors import LorryError, MissingExtraError, StoreError, UsageError
from lorry_registry.signing.signing_settings import Identity

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig

_OUTER = "the sigstore at LORRY_SIGSTORE_TRUST, or the public one"


@contextmanager
def reporting_sigstore(verb: str) -> Iterator[None]:
    """Turn sigstore's failures into errors that say what it could not do.

    Raises:
        MissingExtraError: It is not installed.
        StoreError: It cannot be reached, or refused.
    """
    try:
        yield
    except LorryError:
        raise
    except ImportError as error:
        raise MissingExtraError(
            f"signing as an identity needs sigstore: {error}", todo="pip install 'lorry[signing]'"
        ) from error
    except Exception as error:
        # Sigstore's errors, those of its TUF client, of requests, and of pydantic have no common root.
        raise StoreError(
            f"sigstore cannot {verb}: {type(error).__name__}: {error}",
            where=_OUTER,
            todo="check the network and LORRY_SIGSTORE_TRUST, or use keys: lorry sign --generate-key",
        ) from error


def find_token(trust: Path | None) -> str:
    """Return a token that proves who this is: a workload's credential, or that of a person who logs in.

    Args:
        trust: The trust of a sigstore of one's own, which names its issuer; None: the public one.

    Raises:
        UsageError: There is no credential, and no user at a terminal.
        StoreError: Sigstore cannot be reached.
    """
    with reporting_sigstore("find out who this is"):
        from sigstore.oidc import Issuer, detect_credential

        token = detect_credential()
        if token is not None:
            return token
        if not sys.stdin.isatty():
            raise UsageError(
                "there is no credential to sign with as an identity, and no user at a terminal to log in",
                where="LORRY_SIGNING_KEY",
                todo="run where sigstore finds a workload's credential, or sign with a key",
            )
        issuer = Issuer(_read_trust(trust).signing_config.get_oidc_url())
        return str(issuer.identity_token())


def sign_as_identity(content: bytes, token: str, trust: Path | None) -> str:
    """Sign bytes as an identity; return a sigstore bundle as JSON.

    Raises:
        StoreError: Sigstore cannot be reached, or refused.
    """
    with reporting_sigstore("sign"):
        from sigstore.oidc import IdentityToken
        from sigstore.sign import SigningContext

        context = SigningContext.from_trust_config(_read_trust(trust))
        with context.signer(IdentityToken(token)) as signer:
            bundle: str = signer.sign_artifact(content).to_json()
    return bundle


def is_signed_by_identity(content: bytes, bundle: str, identity: Identity, trust: Path | None) -> bool:
    """Return whether a bundle is an identity's signature of bytes.

    Raises:
        StoreError: What sigstore trusts cannot be read: there is no network, and no file of it.
    """
    with reporting_sigstore("check a signature"):
        from sigstore.errors import VerificationError
        from sigstore.models import Bundle, InvalidBundle
        from sigstore.verify import Verifier, policy

        try:
            parsed = Bundle.from_json(bundle)
        except (InvalidBundle, ValueError, RecursionError):
            return False
        verifier = Verifier(trusted_root=_read_trust(trust).trusted_root)
        try:
            verifier.verify_artifact(
                content, parsed, policy.Identity(identity=identity.name, issuer=identity.issuer)
            )
        except VerificationError:
            return False
    return True


def _read_trust(trust: Path | None) -> "ClientTrustConfig":
    from sigstore.models import ClientTrustConfig

    if trust is None:
        return ClientTrustConfig.production()
    try:
        return ClientTrustConfig.from_json(trust.read_text("utf-8"))
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise UsageError(
            "not the trust of a sigstore",
            where=str(trust),
            todo="name a client trust configuration in LORRY_SIGSTORE_TRUST",
        ) from error
