"""Signing as an identity needs a network; what is tested here is what happens without one."""

import base64
import io
import json
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
import sigstore
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from lorry_registry.errors import AdapterRejectedError, StoreError, UsageError
from lorry_registry.signing import SigningSettings, Trust
from lorry_registry.signing.attestations import FolderSignatures
from lorry_registry.signing.event_signatures import EventSignature
from lorry_registry.signing.keyless import find_token
from lorry_registry.signing.signing_settings import Identity


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let no name be found, and keep what sigstore keeps out of this user's home."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    for variable in ("GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "CIRCLECI", "SIGSTORE_ID_TOKEN"):
        monkeypatch.delenv(variable, raising=False)


def build_trust(**fields: object) -> Trust:
    identity = Identity.parse("ci@example.org|https://accounts.example.org")
    return Trust(SigningSettings.model_validate({"trusted_identities": [identity], **fields}))


def make_bundle() -> str:
    """Return a bundle of the right form, with a certificate that anybody could have made."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ci@example.org")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(minutes=10))
        .sign(key, hashes.SHA256())
    )
    encoded = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
    nothing = base64.b64encode(bytes(32)).decode()
    signed = base64.b64encode(key.sign(b"{}", ec.ECDSA(hashes.SHA256()))).decode()
    entry = {
        "logIndex": "1",
        "logId": {"keyId": nothing},
        "kindVersion": {"kind": "hashedrekord", "version": "0.0.1"},
        "integratedTime": str(int(now.timestamp())),
        "inclusionPromise": {"signedEntryTimestamp": nothing},
        "inclusionProof": {
            **{"logIndex": "1", "rootHash": nothing, "treeSize": "2", "hashes": []},
            "checkpoint": {"envelope": "x"},
        },
        "canonicalizedBody": nothing,
    }
    return json.dumps(
        {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"certificate": {"rawBytes": encoded}, "tlogEntries": [entry]},
            "messageSignature": {
                "messageDigest": {"algorithm": "SHA2_256", "digest": nothing},
                "signature": signed,
            },
        }
    )


def write_trust(folder: Path) -> Path:
    """Write what sigstore's own package knows of the public instance, as one file."""
    (known,) = (
        path
        for path in Path(sigstore.__path__[0]).rglob("trusted_root.json")
        if "sigstore" in path.parent.name
    )
    parts = {
        name: json.loads((known.parent / f"{file}.json").read_text())
        for name, file in (("trustedRoot", "trusted_root"), ("signingConfig", "signing_config.v0.2"))
    }
    target = folder / "trust.json"
    media = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
    target.write_text(json.dumps({"mediaType": media, **parts}))
    return target


def test_a_certificate_that_anybody_could_make_is_not_trusted(
    tmp_path: Path, make_adapter: Callable[..., Any]
) -> None:
    trust = build_trust(policy="require", sigstore_trust=write_trust(tmp_path))
    assert not trust.is_trusted_event(b"{}", EventSignature(bundle=make_bundle()))
    adapter = make_adapter()
    (adapter.path / "signatures").mkdir()
    (adapter.path / "signatures" / "sigstore-1.json").write_text(make_bundle())
    with pytest.raises(AdapterRejectedError, match=r"its signature for ci@example.org|https://accounts"):
        trust.check_adapter(adapter.manifest, [FolderSignatures(adapter.path)], where="here")


def test_a_step_without_a_credential_does_not_wait_for_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UsageError, match="no user at a terminal"):
        find_token(None)
    with pytest.raises(UsageError, match="no user at a terminal"):
        build_trust(key="sigstore").sign_event(b"{}")


def test_what_cannot_be_checked_is_an_error_and_no_verdict() -> None:
    signature = EventSignature(bundle=make_bundle())
    with pytest.raises(StoreError, match="sigstore cannot check a signature"):
        build_trust(policy="require").is_trusted_event(b"{}", signature)


def test_what_is_no_bundle_is_not_trusted() -> None:
    signature = EventSignature(bundle="{}")
    assert not build_trust(policy="require").is_trusted_event(b"{}", signature)


def test_a_file_that_is_no_trust_is_named(tmp_path: Path) -> None:
    file = tmp_path / "trust.json"
    file.write_text("{}")
    with pytest.raises(UsageError, match="not the trust of a sigstore") as refusal:
        build_trust(policy="require", sigstore_trust=file).is_trusted_event(
            b"{}", EventSignature(bundle=make_bundle())
        )
    assert refusal.value.where == str(file)


@pytest.mark.parametrize("text", ["ci@example.org", "|https://a.example", "ci|", "ci|http://a.example"])
def test_an_identity_has_an_issuer(text: str) -> None:
    with pytest.raises(ValueError, match="is not an identity"):
        Identity.parse(text)
