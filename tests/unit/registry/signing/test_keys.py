"""Key files: written once, readable by their owner alone, and refused with a remedy when they do not do."""

import subprocess
from pathlib import Path

import pytest

from lorry_registry.errors import ConflictError, StoreError, UsageError
from lorry_registry.signing.keys import identify_key, read_private_key, read_public_key, write_key_pair


def test_a_pair_belongs_together_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    public = write_key_pair(tmp_path / "key", "")
    private = read_private_key(tmp_path / "key", "")
    assert public.path == tmp_path / "key.pub"
    assert identify_key(private.public_key()) == public.id
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "key.pub"]


def test_a_key_is_encrypted_with_the_password(tmp_path: Path) -> None:
    write_key_pair(tmp_path / "key", "correct horse")
    assert b"ENCRYPTED" in (tmp_path / "key").read_bytes()
    read_private_key(tmp_path / "key", "correct horse")
    for password, words in (("", "it is encrypted"), ("battery staple", "another password")):
        with pytest.raises(UsageError, match=words) as refusal:
            read_private_key(tmp_path / "key", password)
        assert "LORRY_SIGNING_KEY_PASSWORD" in refusal.value.todo
        assert not password or password not in str(refusal.value)
    write_key_pair(tmp_path / "open", "")
    with pytest.raises(UsageError, match="not encrypted, but a password is set"):
        read_private_key(tmp_path / "open", "correct horse")


@pytest.mark.parametrize("taken", ["key", "key.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).symlink_to("nowhere")
    with pytest.raises(ConflictError):
        write_key_pair(tmp_path / "key", "")
    assert [path.name for path in tmp_path.iterdir()] == [taken]


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        write_key_pair(tmp_path / "missing" / "key", "")


@pytest.mark.parametrize("curve", ["prime256v1", "secp384r1", "secp521r1"])
def test_keys_that_openssl_makes_are_read(tmp_path: Path, curve: str) -> None:
    key, public = tmp_path / "key.pem", tmp_path / "key.pub"
    subprocess.run(["openssl", "ecparam", "-name", curve, "-genkey", "-noout", "-out", key], check=True)
    subprocess.run(["openssl", "ec", "-in", key, "-pubout", "-out", public], check=True, capture_output=True)
    assert identify_key(read_private_key(key, "").public_key()) == read_public_key(public).id
    # Kubernetes mounts the files of a secret as links.
    (tmp_path / "link").symlink_to("key.pub")
    assert read_public_key(tmp_path / "link").id == read_public_key(public).id


def test_other_keys_and_what_is_none_are_refused(tmp_path: Path) -> None:
    rsa, curve, junk = tmp_path / "rsa", tmp_path / "curve", tmp_path / "junk"
    for command in (
        ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", rsa],
        ["ecparam", "-name", "secp256k1", "-genkey", "-noout", "-out", curve],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    junk.write_bytes(b"junk")
    for path, words in ((rsa, "of a kind"), (curve, "of a kind"), (junk, "not a private key")):
        with pytest.raises(UsageError, match=words):
            read_private_key(path, "")
        subprocess.run(
            ["openssl", "pkey", "-in", path, "-pubout", "-out", f"{path}.pub"],
            check=False,
            capture_output=True,
        )
        with pytest.raises(UsageError):
            read_public_key(Path(f"{path}.pub"))
    with pytest.raises(UsageError, match="cannot be read"):
        read_public_key(tmp_path)
