"""Key pairs on elliptic curves, as files.

A key is named by the SHA-256 of its public half in PEM, as model-signing names it in its signatures.
``cryptography`` is imported when a key is used, not before.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorry_registry.errors import ConflictError, MissingExtraError, StoreError, UsageError
from lorry_registry.files.atomic_write import whole_file, write_whole
from lorry_registry.files.regular_files import open_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

PASSWORD_VARIABLE = "LORRY_SIGNING_KEY_PASSWORD"  # noqa: S105 -- the name of a variable
_KEY_VARIABLE = "LORRY_SIGNING_KEY"
# The curves that model-signing takes, with the hash that belongs to each.
_HASHES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
_MAX_KEY_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key.

    Attributes:
        path: Its file.
        id: SHA-256 of its PEM, in hex.
        key: The key.
    """

    path: Path
    id: str
    key: "EllipticCurvePublicKey"


def read_public_key(path: Path) -> PublicKey:
    """Read a public key.

    Raises:
        MissingExtraError: ``cryptography`` is not installed.
        UsageError: The file cannot be read, or is no public key on a curve that can be used.
    """
    require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    todo = "name the PEM file of a public key in LORRY_TRUSTED_KEYS; lorry sign --generate-key writes a pair"
    content = _read_key_file(path, todo)
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError("not a public key in PEM", where=str(path), todo=todo) from error
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise _refuse_curve(path)
    return PublicKey(path, identify_key(key), key)


def read_private_key(path: Path, password: str) -> "EllipticCurvePrivateKey":
    """Read a private key.

    Args:
        path: Its file, in PEM.
        password: What it is encrypted with; empty: it is not.

    Raises:
        MissingExtraError: ``cryptography`` is not installed.
        UsageError: The file cannot be read, the password is wrong, or it is no key that can be used.
    """
    require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read_key_file(path, f"name the PEM file of a private key in {_KEY_VARIABLE}")
    try:
        key = load_pem_private_key(content, password.encode() or None)
    except TypeError as error:
        what = "it is not encrypted, but a password is set" if password else "it is encrypted"
        todo = f"unset {PASSWORD_VARIABLE}" if password else f"set {PASSWORD_VARIABLE} to its password"
        raise UsageError(what, where=str(path), todo=todo) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            "not a private key in PEM, or encrypted with another password",
            where=str(path),
            todo=f"check {_KEY_VARIABLE} and {PASSWORD_VARIABLE}",
        ) from error
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in _HASHES:
        raise _refuse_curve(path)
    return key


def write_key_pair(path: Path, password: str) -> PublicKey:
    """Write a new key pair on P-256; only its owner may read the private key's file.

    Args:
        path: The private key's file; the public key's has ``.pub`` at its end. Neither may exist.
        password: What the private key is encrypted with; empty: nothing.

    Raises:
        ConflictError: One of the files exists: a key is never overwritten.
        MissingExtraError: ``cryptography`` is not installed.
        StoreError: A file cannot be written.
    """
    require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    public = path.with_name(f"{path.name}.pub")
    for taken in (path, public):
        if os.path.lexists(taken):
            raise ConflictError("it exists", where=str(taken), todo="name another file")
    key = ec.generate_private_key(ec.SECP256R1())
    encryption = (
        serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    )
    content = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    try:
        with whole_file(path) as partial:
            # Before the first byte is in it, and not after.
            partial.touch(0o600, exist_ok=False)
            partial.write_bytes(content)
        write_whole(public, encode_public_key(key.public_key()))
    except OSError as error:
        raise StoreError(
            f"cannot be written: {error.strerror or error}",
            where=str(path),
            todo="name a file in a folder that exists and can be written",
        ) from error
    return read_public_key(public)


def identify_key(key: "EllipticCurvePublicKey") -> str:
    """Return the id of a public key: SHA-256 of its PEM, in hex."""
    return hashlib.sha256(encode_public_key(key)).hexdigest()


def encode_public_key(key: "EllipticCurvePublicKey") -> bytes:
    """Return a public key in PEM."""
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def choose_hash(key: "EllipticCurvePublicKey") -> "HashAlgorithm":
    """Return the hash that belongs to a key's curve."""
    from cryptography.hazmat.primitives import hashes

    algorithm: HashAlgorithm = getattr(hashes, _HASHES[key.curve.name])()
    return algorithm


def require_cryptography() -> None:
    """Raise unless signatures can be made and checked.

    Raises:
        MissingExtraError: ``cryptography`` is not installed.
    """
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "signatures need cryptography, which is not installed", todo="pip install 'lorry[signing]'"
        ) from error


def _read_key_file(path: Path, todo: str) -> bytes:
    try:
        # Kubernetes mounts a secret's files as links.
        with open_regular(path.resolve()) as stream:
            return stream.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise UsageError(
            f"the key cannot be read: {error.strerror or error}", where=str(path), todo=todo
        ) from error


def _refuse_curve(path: Path) -> UsageError:
    return UsageError(
        "a key of a kind that is not used for signing here",
        where=str(path),
        todo="use a key on the curve P-256, P-384 or P-521, such as lorry sign --generate-key writes",
    )
