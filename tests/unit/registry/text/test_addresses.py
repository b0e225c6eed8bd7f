"""What of an address may be shown."""

import pytest

from lorry_registry.errors import StoreError, TrackingError
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.stores import open_store
from lorry_registry.text.addresses import (
    has_secret,
    hide_secrets,
    list_secrets,
    split_store_address,
    split_tracking_address,
)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://user:hunter2@host:5432/db", "postgresql://***@host:5432/db"),
        ("postgresql+psycopg2://user:hunt@er2@host/db", "postgresql+psycopg2://***@host/db"),
        ("https://:hunter2@host", "https://***@host"),
        ("postgresql://host/db?user=me&password=hunter2", "postgresql://host/db?user=me&password=***"),
        ("https://ghp_hunter2@host/path?a=%20b", "https://***@host/path?a=%20b"),
        ("https://hunter2:x-oauth-basic@host", "https://***@host"),
        ("postgresql://user:hun/ter2@host/db", "postgresql://***@host/db"),
        ("https://user:hunter2@[::1", "https://***@[::1"),
        ("https://host/x?p%61ssword=hunter2&a=1", "https://host/x?p%61ssword=***&a=1"),
        ("https://host/x?X-Amz-Signature=hunter2", "https://host/x?X-Amz-Signature=***"),
        ("https://host/#access_token=hunter2", "https://host/#access_token=***"),
        ("s3://key:hunter2@bucket/folder", "s3://***@bucket/folder"),
    ],
)
def test_secrets_are_hidden(address: str, shown: str) -> None:
    assert hide_secrets(address) == shown
    assert has_secret(address)


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:////home/me/.lorry/mlflow.db",
        "sqlite:///mlflow.db?timeout=3",
        "http://127.0.0.1:5000",
        "https://host/path?a=%20b",
        "https://host/name@v1",
        "http://[::1",
        "http://[::1]:5000/x@y",
        "/a/folder with spaces",
        "",
    ],
)
def test_all_else_stays_as_it_is(address: str) -> None:
    assert hide_secrets(address) == address
    assert not has_secret(address)


def test_the_secrets_of_an_address_are_listed_as_written_and_decoded() -> None:
    assert list_secrets("https://me:hunt%20er2@host/x?token=abc%21&a=1") == {
        "me:hunt%20er2",
        "me:hunt er2",
        "hunt%20er2",
        "hunt er2",
        "abc%21",
        "abc!",
    }
    assert list_secrets("https://ghp_hunter2@host") == {"ghp_hunter2"}
    assert list_secrets("/a/folder") == frozenset()


@pytest.mark.parametrize("address", ["http://[::1", "http://user:hunter2@[::1", "http://[x]/"])
def test_what_is_no_address_is_a_clear_error(address: str) -> None:
    with pytest.raises(StoreError, match="not an address") as refused:
        split_store_address(address)
    assert "LORRY_STORE" in str(refused.value)
    with pytest.raises(TrackingError, match="not an address") as caught:
        split_tracking_address(address)
    assert "hunter2" not in str(refused.value) + str(caught.value)
    with pytest.raises(TrackingError, match="not an address"):
        split_tracking_address("http://host:port")


@pytest.mark.parametrize("address", ["file:///a%00b", "sqlite:////a%00b.db", "a\0b", "http://host/%00"])
def test_a_null_character_is_refused_before_a_library_meets_it(address: str) -> None:
    with pytest.raises(StoreError, match="it holds a null character"):
        open_store(address)
    with pytest.raises(TrackingError, match="it holds a null character"):
        MlflowIndex(address)
