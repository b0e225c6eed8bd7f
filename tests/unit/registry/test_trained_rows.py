"""Which rows an adapter was trained on: all of them are recognised, and hardly any other."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorry_registry.errors import AdapterRejectedError
from lorry_registry.manifest import Manifest
from lorry_registry.signing.attestations import attestations_key
from lorry_registry.stores import LocalStore
from lorry_registry.trained_rows import (
    NUMBERS_A_ROW,
    TrainedRows,
    digest_rows,
    read_rows,
    store_rows,
)

from fixtures.adapters import write_adapter

SALT = "sha256:" + "5" * 64
keys = st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=50)


def collect(rows: list[tuple[str, str]], salt: str = SALT) -> TrainedRows:
    return TrainedRows.collect(rows, unit="row", salt=salt)


@given(keys)
@settings(max_examples=200, deadline=None)
def test_every_row_that_was_trained_on_is_recognised(rows: list[tuple[str, str]]) -> None:
    read = TrainedRows.parse(collect(rows).serialize(), where="here")
    assert read == collect(rows)
    assert read.find_unseen(rows) == []
    # Neither their order nor their number matters.
    assert collect([*reversed(rows), *rows]).serialize() == collect(rows).serialize()


def test_of_other_rows_one_in_a_thousand_is_taken_for_one() -> None:
    rows = collect([(f"row {number}", "") for number in range(20_000)])
    others = [(f"another {number}", "") for number in range(100_000)]
    wrong = len(others) - len(rows.find_unseen(others))
    # 98 are expected, with a standard deviation of 10.
    assert 50 < wrong < 100_000 / NUMBERS_A_ROW + 50


def test_they_take_two_bytes_a_row() -> None:
    rows = collect([(f"row {number}", "") for number in range(20_000)])
    assert len(rows.serialize()) < 2.0 * 20_000 + 200


def test_no_text_is_in_them_and_other_data_give_other_numbers() -> None:
    rows = [(f"a secret {number}", "") for number in range(1000)]
    content = collect(rows).serialize()
    assert b"secret" not in content
    other = collect(rows, salt="sha256:" + "6" * 64)
    assert len(set(other.numbers) & set(collect(rows).numbers)) < 10


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}\n",
        b"[]\n\x01",
        b'{"format":2,"salt":"s","span":2048,"unit":"row"}\n\x01',
        b'{"format":1,"salt":"s","span":2048,"unit":"word"}\n\x01',
        b'{"format":1,"salt":3,"span":2048,"unit":"row"}\n\x01',
        b'{"format":1,"salt":"s","span":true,"unit":"row"}\n\x01',
        b'{"format":1,"salt":"\\ud800","span":2048,"unit":"row"}\n\x01',
        b'{"format":1,"salt":"s","span":2048,"unit":"row"}\n\x81',
        b'{"format":1,"salt":"s","span":2048,"unit":"row"}\n\xff\x7f',
        b'{"format":1,"salt":"s","span":2048,"unit":"row"}\n' + b"\xff" * 20 + b"\x01",
        b" " * 2000 + b"\n",
        b"[" * 1000 + b"\n",
    ],
)
def test_what_is_no_list_of_rows_is_refused(content: bytes) -> None:
    with pytest.raises(AdapterRejectedError, match="training rows cannot be read"):
        TrainedRows.parse(content, where="here")


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    head = b'{"format":1,"salt":"s","span":1048576,"unit":"row"}\n'
    try:
        rows = TrainedRows.parse(head + body, where="here")
    except AdapterRejectedError:
        return
    assert list(rows.numbers) == sorted(set(rows.numbers))
    assert all(0 <= number < rows.span for number in rows.numbers)


# In the store


@pytest.fixture
def rows() -> TrainedRows:
    return collect([("a text", ""), ("another", "")])


@pytest.fixture
def manifest(tmp_path: Path, rows: TrainedRows) -> Manifest:
    found = write_adapter(tmp_path / "adapter").manifest
    inputs = found.inputs.model_copy(update={"rows_digest": digest_rows(rows)})
    return found.model_copy(update={"inputs": inputs})


def find_file(store: LocalStore, manifest: Manifest) -> Path:
    (path,) = (store.root / attestations_key(manifest.adapter_id)).rglob("*.bin")
    return path


def test_they_lie_beside_the_adapter_and_are_read_by_their_digest(
    store: LocalStore, manifest: Manifest, rows: TrainedRows
) -> None:
    store_rows(store, manifest, rows.serialize())
    store_rows(store, manifest, rows.serialize())
    assert read_rows(store, manifest) == rows


def test_changed_or_missing_rows_are_refused_and_can_be_put_back(
    store: LocalStore, manifest: Manifest, rows: TrainedRows
) -> None:
    with pytest.raises(AdapterRejectedError, match="training rows is missing"):
        read_rows(store, manifest)
    store_rows(store, manifest, rows.serialize())
    path = find_file(store, manifest)
    path.chmod(0o644)
    path.write_bytes(rows.serialize() + b"\x01")
    with pytest.raises(AdapterRejectedError, match="training rows was changed"):
        read_rows(store, manifest)
    store_rows(store, manifest, rows.serialize())
    assert read_rows(store, manifest) == rows


def test_other_rows_than_the_manifest_names_are_not_stored(
    store: LocalStore, manifest: Manifest, rows: TrainedRows
) -> None:
    with pytest.raises(AdapterRejectedError, match="not the one in its manifest"):
        store_rows(store, manifest, rows.serialize() + b"\x01")
    assert not list(store.root.rglob("*.bin"))


def test_an_adapter_of_an_older_lorry_has_none_and_keeps_its_id(store: LocalStore, tmp_path: Path) -> None:
    manifest = write_adapter(tmp_path / "older").manifest
    assert read_rows(store, manifest) is None
    assert b"rows_digest" not in manifest.serialize()
    assert b"baselines" not in manifest.serialize()
