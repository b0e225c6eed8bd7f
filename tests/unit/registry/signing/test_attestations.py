"""Signatures in the store: a good one stays, another is replaced, and writers do not hinder each other."""

from pathlib import Path

import pytest

from lorry_registry.errors import ConflictError
from lorry_registry.files.digests import digest_bytes
from lorry_registry.signing.attestations import FolderSignatures, StoredSignatures
from lorry_registry.stores import LocalStore

ADAPTER = digest_bytes(b"an adapter")
NAME = "a" * 64


def is_good(bundle: bytes) -> bool:
    return bundle.startswith(b"good")


class _RacedStore(LocalStore):
    """A store in which somebody else writes just before each swap."""

    def __init__(self, root: Path, written: bytes) -> None:
        super().__init__(root)
        self._written = written

    def compare_and_swap(self, key: str, content: bytes, expected: str | None) -> str:
        super().compare_and_swap(key, self._written, expected)
        return super().compare_and_swap(key, content, expected)


def test_the_first_signature_is_written_and_stays(store: LocalStore) -> None:
    signatures = StoredSignatures(store, ADAPTER)
    assert signatures.read(NAME) is None
    assert signatures.list_names() == []
    assert signatures.write(NAME, b"good 1", is_good=is_good)
    assert not signatures.write(NAME, b"good 2", is_good=is_good)
    assert signatures.read(NAME) == b"good 1"
    assert signatures.list_names() == [NAME]


def test_one_that_is_not_good_is_replaced(store: LocalStore) -> None:
    signatures = StoredSignatures(store, ADAPTER)
    signatures.write(NAME, b"forged", is_good=is_good)
    assert signatures.write(NAME, b"good", is_good=is_good)
    assert signatures.read(NAME) == b"good"


@pytest.mark.parametrize("other", [b"good, too", b"forged again"])
def test_of_two_who_replace_it_the_first_wins_if_it_is_good(store: LocalStore, other: bytes) -> None:
    StoredSignatures(store, ADAPTER).write(NAME, b"forged", is_good=is_good)
    raced = StoredSignatures(_RacedStore(store.root, other), ADAPTER)
    if is_good(other):
        assert not raced.write(NAME, b"good", is_good=is_good)
    else:
        with pytest.raises(ConflictError):
            raced.write(NAME, b"good", is_good=is_good)
    assert raced.read(NAME) == other


def test_only_so_many_names_are_looked_at(store: LocalStore, tmp_path: Path) -> None:
    prefix = f"attestations/{ADAPTER[7:]}/signatures"
    for number in range(80):
        store.create(f"{prefix}/sigstore-{number:03d}.json", b"{}")
    store.create(f"{prefix}/no-signature.txt", b"")
    assert len(StoredSignatures(store, ADAPTER).list_names()) == 64
    folder = tmp_path / "adapter"
    (folder / "signatures").mkdir(parents=True)
    (folder / "signatures" / "link.json").symlink_to(tmp_path)
    (folder / "signatures" / "huge.json").write_bytes(bytes((1 << 20) + 1))
    signatures = FolderSignatures(folder)
    assert [signatures.read(name) for name in (*signatures.list_names(), "missing")] == [None] * 3
    assert FolderSignatures(tmp_path / "none").list_names() == []
