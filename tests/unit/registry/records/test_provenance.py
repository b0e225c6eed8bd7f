"""Provenance has SLSA's form, agrees with the manifest, and cannot be exchanged."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement_pb2 import Statement

from lorry_registry.errors import AdapterRejectedError
from lorry_registry.files.digests import canonical_json, digest_bytes
from lorry_registry.manifest import Manifest
from lorry_registry.records.provenance import (
    Build,
    SourceRevision,
    attach_provenance,
    build_statement,
    check_statement,
    read_provenance,
)
from lorry_registry.registry import Registry
from lorry_registry.signing.attestations import provenance_key
from lorry_registry.stores import LocalStore

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FULL = Build(
    builder="https://ci.example.org/lorry",
    run="20261127T170000-1",
    mlflow_run="5f3a",
    source=SourceRevision(uri="https://git.example.org/tasks.git", commit=COMMIT, is_dirty=True),
    image="registry.example.org/lorry:1",
    image_digest=digest_bytes(b"an image"),
    started_at=datetime(2026, 11, 27, 17, 0, tzinfo=UTC),
    finished_at=datetime(2026, 11, 27, 17, 5, tzinfo=UTC),
)


@pytest.fixture
def manifest(make_adapter: Callable[..., Any]) -> Manifest:
    found: Manifest = make_adapter().manifest
    return found


@pytest.mark.parametrize("build", [FULL, Build(builder="urn:lorry:builder:process")])
def test_it_has_the_form_of_slsa(manifest: Manifest, build: Build) -> None:
    statement = build_statement(manifest, build)
    # Unknown names of fields are an error here.
    json_format.ParseDict(statement, Statement())
    said = json_format.ParseDict(statement["predicate"], Provenance())
    assert said.build_definition.build_type
    assert said.run_details.builder.id == build.builder
    assert (statement["_type"], statement["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )


def test_it_says_everything_that_is_known(manifest: Manifest) -> None:
    statement = build_statement(manifest, FULL)
    predicate: Any = statement["predicate"]
    assert predicate["runDetails"] == {
        "builder": {"id": "https://ci.example.org/lorry", "version": {"lorry": "0.1.0"}},
        "metadata": {
            "invocationId": "20261127T170000-1",
            "startedOn": "2026-11-27T17:00:00Z",
            "finishedOn": "2026-11-27T17:05:00Z",
        },
        "byproducts": [{"name": "mlflow-run", "uri": "runs:/5f3a"}],
    }
    made_from = {entry["name"]: entry for entry in predicate["buildDefinition"]["resolvedDependencies"]}
    assert made_from["source"] == {
        "name": "source",
        "uri": f"git+https://git.example.org/tasks.git@{COMMIT}",
        "digest": {"gitCommit": COMMIT},
        "annotations": {"dirty": True},
    }
    assert made_from["image"]["digest"] == {"sha256": digest_bytes(b"an image")[7:]}
    assert made_from["base"]["digest"] == {"sha256": manifest.base.fingerprint[7:]}
    assert made_from["prepared-data"]["digest"] == {"sha256": manifest.inputs.data_digest[7:]}
    assert made_from["library peft"]["uri"] == "pkg:pypi/peft@0.21.2"
    subjects: Any = statement["subject"]
    assert {"name": "manifest.json", "digest": {"sha256": manifest.adapter_id[7:]}} in subjects
    assert len(subjects) == 1 + len(manifest.files)


def test_the_same_training_has_the_same_id_whoever_ran_it(manifest: Manifest, store: LocalStore) -> None:
    first = attach_provenance(store, manifest, FULL)
    second = attach_provenance(store, manifest, FULL.model_copy(update={"run": "another"}))
    assert first != second
    for digest in (first, second):
        assert read_provenance(store, manifest, digest)["subject"]


def change(statement: Any, path: str, value: Any) -> Any:
    *parents, last = path.split("/")
    for name in parents:
        statement = statement[int(name) if name.isdigit() else name]
    statement[int(last) if last.isdigit() else last] = value


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("subject/0/digest/sha256", "0" * 64, "files"),
        ("subject", [], "files"),
        ("predicateType", "https://slsa.dev/provenance/v0.2", "its form"),
        ("predicate/buildDefinition/buildType", "urn:other", "its form"),
        ("predicate/buildDefinition/externalParameters/task", "fraud", "recipe"),
        ("predicate/buildDefinition/internalParameters/recipeDigest", "", "recipe"),
        ("predicate/buildDefinition/resolvedDependencies/0/digest/sha256", "0" * 64, "base"),
        ("predicate/buildDefinition/resolvedDependencies/2/digest/sha256", "0" * 64, "prepared-data"),
        ("predicate/buildDefinition/resolvedDependencies", [], "base, data, prepared-data, library"),
        ("predicate", None, "cannot be read"),
        ("subject", "x", "cannot be read"),
    ],
)
def test_what_disagrees_with_the_manifest_is_refused(
    manifest: Manifest, path: str, value: Any, words: str
) -> None:
    statement = json.loads(canonical_json(build_statement(manifest, FULL)))
    check_statement(canonical_json(statement), manifest, where="here")
    change(statement, path, value)
    with pytest.raises(AdapterRejectedError, match=words):
        check_statement(canonical_json(statement), manifest, where="here")


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"[" * 100_000, b"\xff", b"{}", b" " * (2 << 20)])
def test_what_is_no_statement_is_refused(manifest: Manifest, content: bytes) -> None:
    with pytest.raises(AdapterRejectedError, match="cannot be read"):
        check_statement(content, manifest, where="here")


def test_verify_finds_provenance_that_was_changed_or_removed(
    registry: Registry, store: LocalStore, make_adapter: Callable[..., Any]
) -> None:
    adapter = make_adapter()
    adapter_id = registry.publish(adapter.path, adapter.manifest)
    digest = attach_provenance(store, adapter.manifest, FULL)
    registry.register(
        "reviews", adapter_id, promote=True, judged_champion=None, reasons=(), details={"provenance": digest}
    )
    path = store.root / provenance_key(adapter_id, digest)
    original = path.read_bytes()
    assert [error for _, error in registry.verify_task("reviews")] == [None]
    path.write_bytes(original.replace(b"ci.example.org", b"ci.example.com"))
    assert "was changed" in str(next(registry.verify_task("reviews"))[1])
    path.unlink()
    assert "provenance is missing" in str(next(registry.verify_task("reviews"))[1])


def test_a_pulled_folder_carries_it_on_request(
    registry: Registry, store: LocalStore, make_adapter: Callable[..., Any], tmp_path: Path
) -> None:
    adapter = make_adapter()
    adapter_id = registry.publish(adapter.path, adapter.manifest)
    digest = attach_provenance(store, adapter.manifest, FULL)
    registry.export(adapter_id, tmp_path / "bare", sidecars=["signatures"])
    registry.export(adapter_id, tmp_path / "full", sidecars=["signatures", "provenance"])
    assert not {"signatures", "provenance"} & {path.name for path in (tmp_path / "bare").iterdir()}
    (carried,) = (tmp_path / "full" / "provenance").iterdir()
    assert digest_bytes(carried.read_bytes()) == digest
    # The same folder again is the same adapter; one with something else in it is not.
    registry.export(adapter_id, tmp_path / "full")
    for planted in ("model.bin", "x.py"):
        (carried.parent / planted).write_bytes(b"")
        with pytest.raises(Exception, match="is not this adapter"):
            registry.export(adapter_id, tmp_path / "full")
        (carried.parent / planted).unlink()
    (carried.parent / "link.json").symlink_to(carried)
    with pytest.raises(Exception, match="is not this adapter"):
        registry.export(adapter_id, tmp_path / "full")
