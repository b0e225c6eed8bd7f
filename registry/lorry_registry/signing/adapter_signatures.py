"""Signatures of adapters, in the form of the sigstore project's model-signing library.

A signature is a sigstore bundle around a list of the adapter's files with their digests, the manifest among
them. The list is made from the manifest: the caller has hashed the files, or is about to, so nothing is
read twice, and an adapter on S3 is checked without being downloaded. ``model_signing verify`` checks the same
bundle against a folder, from its own reading of the files.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_registry.errors import AdapterRejectedError, MissingExtraError
from lorry_registry.files.atomic_write import write_whole
from lorry_registry.manifest import MANIFEST_NAME, Manifest
from lorry_registry.signing.keyless import reporting_sigstore
from lorry_registry.signing.keys import encode_public_key, identify_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from model_signing.hashing import Config as HashingConfig
    from model_signing.signing import Config as SigningConfig
    from model_signing.verifying import Config as VerifyingConfig

SIGNATURES_FOLDER = "signatures"
PROVENANCE_FOLDER = "provenance"
# What may lie beside an adapter's files in a folder, and is not signed.
SIDECAR_FOLDERS = frozenset({SIGNATURES_FOLDER, PROVENANCE_FOLDER})
_MAX_BUNDLE_BYTES = 1 << 20


def sign_with_key(manifest: Manifest, private_key: Path, password: str) -> bytes:
    """Sign an adapter with a private key; return the bundle.

    Raises:
        MissingExtraError: ``model-signing`` is not installed.
    """
    config = _open_signing().use_elliptic_key_signer(
        private_key=private_key,
        # The library calls it a str, and hands it to a function that takes bytes.
        password=password.encode() or None,  # type: ignore[arg-type]
    )
    return _sign(config, manifest)


def sign_as_identity(manifest: Manifest, token: str, trust: Path | None) -> bytes:
    """Sign an adapter as an identity, through sigstore; return the bundle.

    Raises:
        MissingExtraError: ``model-signing`` is not installed.
        StoreError: Sigstore cannot be reached, or refused.
    """
    config = _open_signing()
    with reporting_sigstore("sign"):
        config.use_sigstore_signer(identity_token=token, trust_config=trust)
        return _sign(config, manifest)


def check_key_signature(manifest: Manifest, bundle: bytes, public_key: Path, key_id: str) -> None:
    """Raise unless a bundle is the signature of an adapter by a key.

    Args:
        manifest: The adapter's manifest.
        bundle: The bundle, which anybody may have written.
        public_key: The public key's file.
        key_id: Its id.

    Raises:
        AdapterRejectedError: It is not.
        MissingExtraError: ``model-signing`` is not installed.
    """
    # Without a hint the library prints a warning, into the output of a command.
    if _read_hint(bundle) != key_id:
        raise AdapterRejectedError("it was made by another key", where=manifest.adapter_id)
    config = _open_verifying().use_elliptic_key_verifier(public_key=public_key)
    _verify(config, manifest, bundle)


def is_signed_by(manifest: Manifest, bundle: bytes, key: "EllipticCurvePublicKey") -> bool:
    """Return whether a bundle is the signature of an adapter by a key.

    Raises:
        MissingExtraError: ``model-signing`` is not installed.
    """
    with _scratch_folder() as scratch:
        path = scratch / "key.pub"
        write_whole(path, encode_public_key(key))
        try:
            check_key_signature(manifest, bundle, path, identify_key(key))
        except AdapterRejectedError:
            return False
    return True


def check_identity_signature(
    manifest: Manifest, bundle: bytes, name: str, issuer: str, trust: Path | None
) -> None:
    """Raise unless a bundle is the signature of an adapter by an identity.

    Raises:
        AdapterRejectedError: It is not.
        MissingExtraError: ``model-signing`` is not installed.
        StoreError: What sigstore trusts cannot be read: there is no network, and no file of it.
    """
    config = _open_verifying()
    with reporting_sigstore("check a signature"):
        config.use_sigstore_verifier(identity=name, oidc_issuer=issuer, trust_config=trust)
    _verify(config, manifest, bundle)


def _sign(config: "SigningConfig", manifest: Manifest) -> bytes:
    with _scratch_folder() as scratch:
        target = scratch / "signature.json"
        config.set_hashing_config(_list_files(manifest)).sign(_name_model(manifest), target)
        return target.read_bytes()


def _verify(config: "VerifyingConfig", manifest: Manifest, bundle: bytes) -> None:
    if len(bundle) > _MAX_BUNDLE_BYTES:
        raise AdapterRejectedError("it is too large for a signature", where=manifest.adapter_id)
    with _scratch_folder() as scratch:
        path = scratch / "signature.json"
        write_whole(path, bundle)
        try:
            config.set_hashing_config(_list_files(manifest)).verify(_name_model(manifest), path)
        except Exception as error:
            # The bundle may be anything, and the library fails in as many ways.
            raise AdapterRejectedError(_describe_failure(error), where=manifest.adapter_id) from error


@contextlib.contextmanager
def _scratch_folder() -> Iterator[Path]:
    # Commands that check nothing are faster without it.
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _describe_failure(error: Exception) -> str:
    text = str(error)
    if text.startswith("Signature mismatch"):
        return "it is a signature of other files"
    if type(error).__name__ == "InvalidSignature":
        return "the signature is wrong"
    return f"it is no signature that can be read: {type(error).__name__}" + (
        f": {text[:200]}" if text else ""
    )


def _read_hint(bundle: bytes) -> str | None:
    try:
        hint = json.loads(bundle)["verificationMaterial"]["publicKey"]["hint"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return hint if isinstance(hint, str) else None


def _name_model(manifest: Manifest) -> str:
    # For people only: model-signing compares files, not this name.
    return manifest.task


def _list_digests(manifest: Manifest) -> Iterable[tuple[str, str]]:
    yield MANIFEST_NAME, manifest.adapter_id
    for entry in manifest.files:
        yield entry.name, entry.sha256


def _list_files(manifest: Manifest) -> "HashingConfig":
    """Return a way of hashing for model-signing: it answers with the digests that the manifest holds."""
    from model_signing import hashing
    from model_signing import manifest as files
    from model_signing._hashing.hashing import Digest

    # As model-signing's own default, so that its command line finds the same when it hashes a folder. What
    # may lie beside the files is named in the signature: the command line then leaves it out by itself.
    form = files.SerializationType.from_args(
        {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
            "ignore_paths": sorted(SIDECAR_FOLDERS),
        }
    )
    items = [
        form.new_item(name, Digest("sha256", bytes.fromhex(digest.removeprefix("sha256:"))))
        for name, digest in _list_digests(manifest)
    ]
    listed = files.Manifest(_name_model(manifest), items, form)

    class _Listed(hashing.Config):
        def hash(self, model_path: Any, *, files_to_hash: Any = None) -> files.Manifest:
            return listed

    return _Listed()  # type: ignore[no-untyped-call]


def _open_signing() -> "SigningConfig":
    _require_library()
    from model_signing.signing import Config

    return Config()


def _open_verifying() -> "VerifyingConfig":
    _require_library()
    from model_signing.verifying import Config

    return Config()


def _require_library() -> None:
    try:
        import model_signing  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"signatures of adapters need model-signing: {error}", todo="pip install 'lorry[signing]'"
        ) from error
