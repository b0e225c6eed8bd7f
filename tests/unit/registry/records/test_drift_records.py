"""What was found of new inputs, in the store."""

from datetime import UTC, datetime

import pytest

from lorry_registry.errors import StoreError
from lorry_registry.files.digests import digest_bytes
from lorry_registry.ledger.events import Champion
from lorry_registry.records.drift_records import DriftRecord, drift_key, read_drift, write_drift
from lorry_registry.stores import LocalStore

NOW = datetime(2030, 1, 31, tzinfo=UTC)


def make_record(*, has_drifted: bool = True) -> DriftRecord:
    return DriftRecord(
        task="reviews",
        champion=3,
        adapter_id=digest_bytes(b"champion"),
        inputs_digest=digest_bytes(b"inputs"),
        at=NOW,
        has_drifted=has_drifted,
        confidence=0.99,
        shifts={"embedding": 0.001} if has_drifted else {},
    )


def test_the_newest_record_is_read_back(store: LocalStore) -> None:
    assert read_drift(store, "reviews") is None
    write_drift(store, make_record())
    write_drift(store, make_record(has_drifted=False))
    assert read_drift(store, "reviews") == make_record(has_drifted=False)
    assert list(store.list_keys("drift")) == ["drift/reviews.json"]


def test_a_record_concerns_one_champion(store: LocalStore) -> None:
    record = make_record()
    assert record.concerns(Champion(version=3, adapter_id=record.adapter_id, promoted_at=NOW))
    assert not record.concerns(Champion(version=4, adapter_id=digest_bytes(b"next"), promoted_at=NOW))
    assert not record.concerns(None)


def test_a_record_is_told_in_a_sentence() -> None:
    assert make_record().describe() == (
        "inputs of 2030-01-31 have drifted from the rows that v3 was trained on: embedding"
    )
    assert "are like the rows that v3" in make_record(has_drifted=False).describe()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"task": 1}', b"\xff"])
def test_a_damaged_record_is_refused(store: LocalStore, content: bytes) -> None:
    store.replace(drift_key("reviews"), content)
    with pytest.raises(StoreError, match="no record of drift"):
        read_drift(store, "reviews")
