"""Reading without boto3's work: only what boto3 would have answered the same."""

import uuid
from collections.abc import Callable

import pytest

from lorry_registry.stores.s3 import S3Store

from fixtures.s3_faults import FaultProxy
from fixtures.s3_server import BUCKET, QUICK

ListCalls = Callable[[S3Store], list[str]]


@pytest.fixture
def list_calls() -> ListCalls:
    """Return a function that begins a list of the keys that boto3 is asked for."""

    def begin(store: S3Store) -> list[str]:
        asked: list[str] = []
        store._client.meta.events.register(
            "before-parameter-build.s3.GetObject", lambda params, **_: asked.append(params["Key"])
        )
        return asked

    return begin


def test_boto3_is_asked_once_and_then_no_more(s3_store: S3Store, list_calls: ListCalls) -> None:
    s3_store.create("a/b", b"one")
    tag = s3_store.compare_and_swap("a/c", b"two", None)
    asked = list_calls(s3_store)
    for _ in range(2):
        one, two = s3_store.read("a/b"), s3_store.read("a/c")
        assert one is not None
        assert two is not None
        assert (one.content, two.content, two.etag) == (b"one", b"two", tag)
    assert len(asked) == 1
    # The tag is one that a swap takes.
    s3_store.compare_and_swap("a/c", b"three", tag)


def test_a_store_without_a_prefix_is_read_too(s3_store: S3Store, list_calls: ListCalls) -> None:
    store = S3Store(f"s3://{BUCKET}", patience=QUICK)
    # A name that is the bucket's as well.
    keys = [f"{BUCKET}/{BUCKET}/{uuid.uuid4().hex}" for _ in range(2)]
    for key in keys:
        store.create(key, key.encode())
    asked = list_calls(store)
    assert [stored and stored.content for stored in map(store.read, keys)] == [key.encode() for key in keys]
    assert len(asked) == 1


def test_a_missing_key_is_boto3s_to_tell_and_changes_nothing(
    s3_store: S3Store, list_calls: ListCalls
) -> None:
    s3_store.create("a/b", b"one")
    asked = list_calls(s3_store)
    assert s3_store.read("a/b")
    assert s3_store.read("a/missing") is None
    assert s3_store.read("a/b")
    assert len(asked) == 2


@pytest.mark.parametrize("fault", ["busy", "denied", "drop", "cut", "flip", "stall"])
def test_what_is_no_plain_answer_is_left_to_boto3(
    s3_address: str, faults: FaultProxy, list_calls: ListCalls, fault: str
) -> None:
    store = S3Store(s3_address, patience=QUICK, read_seconds=0.3)
    store.create("a/b", b"content")
    asked = list_calls(store)
    assert store.read("a/b")
    faults.plan.append(("GET", fault))
    stored = store.read("a/b")
    assert not faults.plan
    assert stored is not None
    assert stored.content == b"content"
    assert len(asked) == 2
    assert store.read("a/b") == stored
    assert len(asked) == 3


def test_credentials_that_are_renewed_are_used(
    s3_store: S3Store, list_calls: ListCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_store.create("a/b", b"one")
    assert s3_store.read("a/b")
    used = []
    credentials = s3_store._reader._credentials
    frozen = credentials.get_frozen_credentials()
    monkeypatch.setattr(credentials, "get_frozen_credentials", lambda: used.append(1) or frozen)
    asked = list_calls(s3_store)
    assert s3_store.read("a/b")
    assert (len(used), asked) == (1, [])
