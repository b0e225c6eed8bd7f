"""From keys to a signed registry by the command line, and model-signing's own on what is pulled."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from lorry_registry.records.provenance import Build, attach_provenance
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

Run = Callable[..., Result]
PASSWORD = "a password that must not be shown"  # noqa: S105


@pytest.fixture
def keys(lorry: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with an encrypted key pair; the settings trust and sign with it."""
    monkeypatch.setenv("LORRY_SIGNING_KEY_PASSWORD", PASSWORD)
    made = lorry("sign", "--generate-key", str(tmp_path / "key"), "--json")
    assert json.loads(made.stdout)["public_key"] == str(tmp_path / "key.pub")
    monkeypatch.setenv("LORRY_SIGNING_KEY", str(tmp_path / "key"))
    monkeypatch.setenv("LORRY_TRUSTED_KEYS", str(tmp_path / "key.pub"))
    monkeypatch.setenv("LORRY_SIGNING_POLICY", "require")
    return tmp_path


def verify_by_library(folder: Path, key: Path) -> "subprocess.CompletedProcess[str]":
    (signature,) = (folder / "signatures").iterdir()
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    return subprocess.run(
        [*command, "--signature", str(signature), "--public_key", str(key)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_old_registry_is_signed_and_its_adapters_are_verified_by_the_library(
    register_adapter: Callable[..., Any], lorry: Run, keys: Path, store: LocalStore
) -> None:
    register_adapter(seed=0)
    register_adapter(seed=1)
    refused = lorry("show", "reviews", code=9)
    assert refused.stdout == ""
    assert "lorry sign reviews" in refused.stderr
    signed = lorry("sign", "--all", "--json")
    (report,) = json.loads(signed.stdout)
    assert [version["outcome"] for version in report["versions"]] == ["signed now", "signed now"]
    assert report["attested_events"] == 2
    again = lorry("sign", "reviews")
    assert "signed now" not in again.stdout
    for command in (("show", "reviews"), ("verify", "--all"), ("tasks",), ("history", "reviews")):
        lorry(*command)
    folder = keys / "pulled"
    lorry("pull", "reviews", str(folder))
    done = verify_by_library(folder, keys / "key.pub")
    assert (done.returncode, done.stdout) == (0, "Verification succeeded\n"), done.stderr
    content = bytearray((folder / "adapter_model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "adapter_model.safetensors").write_bytes(content)
    assert verify_by_library(folder, keys / "key.pub").returncode == 1
    everything = b"".join(path.read_bytes() for path in store.root.rglob("*") if path.is_file())
    assert PASSWORD.encode() not in everything


def test_another_key_is_refused_with_what_to_do(
    register_adapter: Callable[..., Any], lorry: Run, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_adapter()
    lorry("sign", "reviews")
    lorry("sign", "--generate-key", str(keys / "other"))
    monkeypatch.setenv("LORRY_TRUSTED_KEYS", str(keys / "other.pub"))
    refused = lorry("pull", "reviews", str(keys / "out"), code=9)
    assert "not by a trusted key" in refused.stderr
    not_ours = lorry("sign", "reviews", code=2)
    assert "not among the trusted" in not_ours.stderr


def test_without_a_key_nothing_is_signed(register_adapter: Callable[..., Any], lorry: Run) -> None:
    register_adapter()
    refused = lorry("sign", "reviews", code=2)
    assert "lorry sign --generate-key" in refused.stderr
    lorry("sign", code=2)


def test_what_an_adapter_was_made_from_is_shown(
    register_adapter: Callable[..., Any], make_adapter: Callable[..., Any], registry: Registry, lorry: Run
) -> None:
    register_adapter()
    missing = lorry("show", "reviews", "--provenance", code=7)
    assert "nothing is recorded about how it was made" in missing.stderr
    adapter = make_adapter(seed=1)
    registry.publish(adapter.path, adapter.manifest)
    build = Build(builder="https://ci.example.org", run="run-7")
    details = {"provenance": attach_provenance(registry.store, adapter.manifest, build)}
    registry.register(
        "reviews", adapter.adapter_id, promote=True, judged_champion=1, reasons=(), details=details
    )
    shown = lorry("show", "reviews", "--provenance").stdout
    assert "https://ci.example.org" in shown
    assert "pkg:pypi/peft@0.21.2" in shown
    statement = json.loads(lorry("show", "reviews", "--provenance", "--json").stdout)
    assert statement["predicate"]["runDetails"]["metadata"]["invocationId"] == "run-7"
    lorry("verify", "reviews")


def test_a_key_is_generated_for_no_task(lorry: Run, tmp_path: Path) -> None:
    refused = lorry("sign", "--all", "--generate-key", str(tmp_path / "key"), code=2)
    assert "generate the key first" in refused.stderr
    assert not (tmp_path / "key").exists()
