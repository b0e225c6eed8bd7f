"""Fingerprints of rows: known rows are recognised, hardly any other is, and changes of data are counted."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorry_registry.errors import AdapterRejectedError
from lorry_registry.files.digests import digest_bytes
from lorry_registry.manifest import Manifest
from lorry_registry.records.row_fingerprints import (
    NUMBERS_AN_INPUT,
    Labels,
    RowChanges,
    RowFingerprints,
    gather_labels,
    read_fingerprints,
    store_fingerprints,
)
from lorry_registry.signing.attestations import attestations_key
from lorry_registry.stores import LocalStore

from fixtures.adapters import write_adapter

SALT = digest_bytes(b"data")
keys = st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=50)


def make_table(first: int, last: int, **labels: str) -> Labels:
    return gather_labels(((f"row {n}", ""), labels.get(f"r{n}", "good")) for n in range(first, last))


def collect(labels: Labels, salt: str = SALT) -> RowFingerprints:
    return RowFingerprints.collect(labels, trained=labels.keys(), salt=salt)


@given(keys)
@settings(max_examples=200, deadline=None)
def test_every_row_that_was_trained_on_is_recognised(rows: list[tuple[str, str]]) -> None:
    made = collect(gather_labels((row, "yes") for row in rows))
    read = RowFingerprints.parse(made.serialize(), where="here")
    assert read == made
    assert read.find_unseen(rows) == []
    # Neither their order nor their number matters.
    again = collect(gather_labels((row, "yes") for row in [*reversed(rows), *rows]))
    assert (again.serialize(), again.digest) == (made.serialize(), made.digest)


def test_rows_that_were_held_out_are_not_taken_for_trained_ones() -> None:
    labels = make_table(0, 100)
    made = RowFingerprints.collect(labels, trained={("row 3", "")}, salt=SALT)
    assert len(made.find_unseen(labels)) == 99
    assert made.compare(labels) == RowChanges(0, 0, 0)


def test_of_other_rows_hardly_one_in_65536_is_taken_for_one() -> None:
    made = collect(make_table(0, 3000))
    others = [(f"another {number}", "") for number in range(100_000)]
    # 1.5 are expected; the probability of more than 10 is below 1e-5.
    assert len(others) - len(made.find_unseen(others)) <= 10
    assert made.span == NUMBERS_AN_INPUT * 3000


def test_no_text_is_in_them_and_other_data_give_other_numbers() -> None:
    labels = gather_labels(((f"a secret {number}", ""), "hidden") for number in range(1000))
    made, other = collect(labels), collect(labels, salt=digest_bytes(b"other"))
    assert b"secret" not in made.serialize()
    assert b"hidden" not in made.serialize()
    assert len(made.checks.keys() & other.checks.keys()) < 5


def test_they_take_some_twenty_bytes_a_row() -> None:
    assert len(collect(make_table(0, 20_000)).serialize()) < 20 * 20_000


def test_changes_are_counted() -> None:
    made = collect(make_table(0, 3000))
    assert made.compare(make_table(0, 3000)) == RowChanges(0, 0, 0)
    assert made.compare(make_table(100, 3500, r200="bad", r300="bad")) == RowChanges(500, 100, 2)


def test_one_input_with_several_labels() -> None:
    made = collect(gather_labels([(("a", ""), "x"), (("a", ""), "y"), (("b", ""), 1.5)]))
    # Neither the order nor a repetition is a change.
    same = gather_labels([(("b", ""), 1.5), (("a", ""), "y"), (("a", ""), "x"), (("a", ""), "y")])
    assert made.compare(same) == RowChanges(0, 0, 0)
    fewer = gather_labels([(("b", ""), 1.0), (("a", ""), "y")])
    assert made.compare(fewer) == RowChanges(0, 0, 2)


@pytest.mark.parametrize(
    ("changes", "described"),
    [
        (RowChanges(0, 0, 0), ""),
        (RowChanges(1, 0, 0), "1 added row"),
        (RowChanges(1500, 0, 2), "1,500 added and 2 relabelled rows"),
        (RowChanges(1, 2, 3), "1 added, 2 removed and 3 relabelled rows"),
    ],
)
def test_counts_in_words(changes: RowChanges, described: str) -> None:
    assert changes.describe() == described


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"salt": 3},
        {"salt": "\ud800"},
        {"span": 1024},
        {"trained": [[1]]},
        {"trained": [[-1, 0]]},
        {"trained": [[1, 1 << 16]]},
        {"held_out": None},
        {"contexts": ["a"]},
        {"unit": "row"},
    ],
)
def test_what_is_no_list_of_fingerprints_is_refused(changes: dict[str, Any]) -> None:
    document = json.loads(collect(make_table(0, 5)).serialize()) | changes
    with pytest.raises(AdapterRejectedError, match="row fingerprints cannot be read"):
        RowFingerprints.parse(json.dumps(document).encode(), where="here")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"[" * 1000, b"\xff", b'{"format":1'])
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(AdapterRejectedError, match="row fingerprints cannot be read"):
        RowFingerprints.parse(content, where="here")


# In the store


@pytest.fixture
def fingerprints() -> RowFingerprints:
    return collect(make_table(0, 2))


@pytest.fixture
def manifest(tmp_path: Path, fingerprints: RowFingerprints) -> Manifest:
    found = write_adapter(tmp_path / "adapter").manifest
    inputs = found.inputs.model_copy(update={"fingerprints_digest": fingerprints.digest})
    return found.model_copy(update={"inputs": inputs})


def test_they_lie_beside_the_adapter_and_are_read_by_their_digest(
    store: LocalStore, manifest: Manifest, fingerprints: RowFingerprints
) -> None:
    store_fingerprints(store, manifest, fingerprints.serialize())
    store_fingerprints(store, manifest, fingerprints.serialize())
    assert read_fingerprints(store, manifest) == fingerprints


def test_changed_or_missing_ones_are_refused_and_can_be_put_back(
    store: LocalStore, manifest: Manifest, fingerprints: RowFingerprints
) -> None:
    content = fingerprints.serialize()
    with pytest.raises(AdapterRejectedError, match="row fingerprints is missing"):
        read_fingerprints(store, manifest)
    store_fingerprints(store, manifest, content)
    (path,) = (store.root / attestations_key(manifest.adapter_id)).glob("row-fingerprints/*.json")
    path.chmod(0o644)
    path.write_bytes(content + b" ")
    with pytest.raises(AdapterRejectedError, match="row fingerprints was changed"):
        read_fingerprints(store, manifest)
    store_fingerprints(store, manifest, content)
    assert read_fingerprints(store, manifest) == fingerprints


def test_others_than_the_manifest_names_are_not_stored(
    store: LocalStore, manifest: Manifest, fingerprints: RowFingerprints
) -> None:
    with pytest.raises(AdapterRejectedError, match="not the one in its manifest"):
        store_fingerprints(store, manifest, fingerprints.serialize() + b" ")
    assert not list(store.root.rglob("row-fingerprints/*"))


def test_an_adapter_that_was_published_without_any_has_none(store: LocalStore, tmp_path: Path) -> None:
    assert read_fingerprints(store, write_adapter(tmp_path / "plain").manifest) is None
