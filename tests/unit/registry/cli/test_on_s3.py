"""The commands on a store on S3: what they print and do is what they print and do on a folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from lorry_registry.adapters.stored_adapters import adapter_key
from lorry_registry.adapters.verification import verify_adapter
from lorry_registry.cli.edge import load_settings
from lorry_registry.registry import Registry
from lorry_registry.signing.attestations import StoredSignatures
from lorry_registry.stores.s3_store import S3Store

from fixtures.s3_server import SECRET_KEY, S3Server
from fixtures.signing import KeyPair

Run = Callable[..., Result]


@pytest.fixture
def store(s3_store: S3Store) -> S3Store:
    """Let the tasks of these tests be on S3."""
    return s3_store


def test_reading(lorry: Run, store: S3Store, two_tasks: dict[str, Any]) -> None:
    entries = json.loads(lorry("tasks", "--json").output)
    assert [(entry["task"], entry["version"]) for entry in entries] == [("films", None), ("reviews", 2)]
    assert "films has 1 version and no champion" in lorry("tasks").output
    assert "v2" in lorry("show", "reviews").output
    assert len(json.loads(lorry("history", "reviews", "--json").output)) == 3
    adapter_id = two_tasks["reviews v2"].adapter_id
    resolved = json.loads(lorry("show", "reviews", "--json").output)
    assert resolved["uri"] == f"{store.address}/{adapter_key(adapter_id)}"
    assert resolved["path"] is None
    assert resolved["adapter_id"] == adapter_id
    assert store.address in lorry("show", "reviews").output.replace("\n", "")
    assert "there is no task 'review'" in lorry("show", "review", code=7).output


def test_a_store_without_tasks(lorry: Run, store: S3Store) -> None:
    output = lorry("tasks").output
    assert f"No task has an adapter yet in {store.address}" in output
    assert "LORRY_STORE=s3://BUCKET/PREFIX lorry tasks" in output


def test_pulling(lorry: Run, two_tasks: dict[str, Any], tmp_path: Path) -> None:
    assert "verified" in lorry("pull", "reviews", str(tmp_path / "out")).output
    adapter = two_tasks["reviews v2"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        path.name: path.read_bytes() for path in adapter.path.iterdir()
    }
    lorry("pull", "reviews", str(tmp_path / "out"))


def test_moving(lorry: Run, two_tasks: dict[str, Any]) -> None:
    def find_champion() -> int:
        champion: int = json.loads(lorry("show", "reviews", "--json").output)["version"]
        return champion

    lorry("promote", "reviews", "v3", "--reason", "a trial")
    assert find_champion() == 3
    lorry("rollback", "reviews", "--reason", "the trial is over")
    assert find_champion() == 2
    assert "a trial" in lorry("history", "reviews").output
    lorry("verify", "--all")


def test_signing(
    lorry: Run,
    store: S3Store,
    s3_server: S3Server,
    two_tasks: dict[str, Any],
    tmp_path: Path,
    ours: KeyPair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LORRY_SIGNING_POLICY", "require")
    monkeypatch.setenv("LORRY_TRUSTED_KEYS", str(ours.public))
    lorry("show", "reviews", code=9)
    monkeypatch.setenv("LORRY_SIGNING_KEY", str(ours.private))
    lorry("sign", "--all")
    lorry("verify", "--all")
    lorry("promote", "reviews", "v1")
    lorry("rollback", "reviews")
    lorry("pull", "reviews", str(tmp_path / "out"))
    (pulled,) = (tmp_path / "out" / "signatures").iterdir()
    assert pulled.stem == ours.id
    key = StoredSignatures(store, two_tasks["reviews v2"].adapter_id).key(ours.id)
    s3_server.open_client().delete_object(**store._place(key))
    assert "it is not signed" in lorry("pull", "reviews", str(tmp_path / "again"), code=6).output
    assert "it is not signed" in lorry("verify", "reviews", code=6).output


def test_what_was_changed_in_the_bucket_is_noticed(
    lorry: Run, store: S3Store, s3_server: S3Server, two_tasks: dict[str, Any], tmp_path: Path
) -> None:
    weights = f"{adapter_key(two_tasks['reviews v2'].adapter_id)}/adapter_model.safetensors"
    place = store._place(weights)
    content = s3_server.open_client().get_object(**place)["Body"].read()
    s3_server.open_client().put_object(**place, Body=content[:-1] + b"\xff")
    assert "is not what the manifest says" in lorry("verify", "reviews", code=6).output
    lorry("pull", "reviews", str(tmp_path / "out"), code=6)
    assert not (tmp_path / "out").exists()
    s3_server.open_client().delete_object(**place)
    assert "is missing" in lorry("verify", "reviews", code=6).output


def test_the_cache_is_filled_once_and_never_trusted(
    lorry: Run, store: S3Store, two_tasks: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    registry, adapter = Registry.open(load_settings()), two_tasks["reviews v2"]
    folder = registry.fetch(adapter.adapter_id)
    downloads: list[str] = []
    original = S3Store.download

    def count(self: S3Store, key: str, target: Path) -> None:
        downloads.append(key)
        original(self, key, target)

    monkeypatch.setattr(S3Store, "download", count)
    assert registry.fetch(adapter.adapter_id) == folder
    lorry("pull", "reviews", str(tmp_path / "out"))
    assert not downloads
    verify_adapter(tmp_path / "out", expected_id=adapter.adapter_id)
    (folder / "adapter_model.safetensors").write_bytes(b"planted")
    lorry("pull", "reviews", str(tmp_path / "again"))
    verify_adapter(tmp_path / "again", expected_id=adapter.adapter_id)
    assert downloads
    assert registry.fetch(adapter.adapter_id) == folder
    assert (folder / "adapter_model.safetensors").read_bytes() == (
        adapter.path / "adapter_model.safetensors"
    ).read_bytes()


def test_a_server_that_is_away_is_one_clear_error(
    lorry: Run, two_tasks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda _: None)
    output = lorry("tasks", code=9).output
    assert "http://127.0.0.1:9 cannot be reached" in output
    assert SECRET_KEY not in output
