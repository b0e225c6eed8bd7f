"""The commands on a store on S3: what they print and do is what they print and do on a folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from lorry_registry.adapters.stored_adapters import adapter_key
from lorry_registry.signing.attestations import StoredSignatures
from lorry_registry.stores.s3_store import S3Store

from fixtures.s3_server import S3Server
from fixtures.signing import KeyPair

Run = Callable[..., Result]


@pytest.fixture
def store(s3_store: S3Store) -> S3Store:
    """Let the tasks of these tests be on S3."""
    return s3_store


def test_commands_do_on_s3_what_they_do_on_a_folder(
    lorry: Run, store: S3Store, two_tasks: dict[str, Any], tmp_path: Path
) -> None:
    entries = json.loads(lorry("tasks", "--json").output)
    assert [(entry["task"], entry["version"]) for entry in entries] == [("films", None), ("reviews", 2)]
    adapter = two_tasks["reviews v2"]
    resolved = json.loads(lorry("show", "reviews", "--json").output)
    assert resolved["uri"] == f"{store.address}/{adapter_key(adapter.adapter_id)}"
    assert resolved["path"] is None
    lorry("pull", "reviews", str(tmp_path / "out"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        path.name: path.read_bytes() for path in adapter.path.iterdir()
    }
    lorry("promote", "reviews", "v3", "--reason", "a trial")
    lorry("rollback", "reviews", "--reason", "the trial is over")
    assert json.loads(lorry("show", "reviews", "--json").output)["version"] == 2
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
    lorry("promote", "reviews", "v1")
    lorry("rollback", "reviews")
    key = StoredSignatures(store, two_tasks["reviews v2"].adapter_id).key(ours.id)
    s3_server.open_client().delete_object(**store._place(key))
    for command in (("pull", "reviews", str(tmp_path / "again")), ("verify", "reviews")):
        assert "it is not signed" in lorry(*command, code=6).output


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
