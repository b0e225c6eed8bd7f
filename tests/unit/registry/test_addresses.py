"""What of an address may be shown."""

import pytest

from lorry_registry.addresses import has_secret, hide_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://user:hunter2@host:5432/db", "postgresql://user:***@host:5432/db"),
        ("postgresql+psycopg2://user:hunt@er2@host/db", "postgresql+psycopg2://user:***@host/db"),
        ("https://:hunter2@host", "https://:***@host"),
        ("postgresql://host/db?user=me&password=hunter2", "postgresql://host/db?user=me&password=***"),
        ("s3://key:hunter2@bucket/folder", "s3://key:***@bucket/folder"),
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
        "https://user@host/path?a=%20b",
        "/a/folder with spaces",
        "",
    ],
)
def test_all_else_stays_as_it_is(address: str) -> None:
    assert hide_secrets(address) == address
    assert not has_secret(address)
