"""Who can write to the store, but has no key, gets no adapter past a reader who requires signatures."""

import json
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.adapters.stored_adapters import adapter_key
from lorry_registry.errors import AdapterRejectedError, LorryError, UsageError
from lorry_registry.maintenance.task_signing import attest_history, sign_versions
from lorry_registry.manifest import WEIGHTS_NAME
from lorry_registry.registry import Registry
from lorry_registry.signing.adapter_signatures import is_signed_by
from lorry_registry.signing.keys import read_public_key
from lorry_registry.stores import LocalStore

from fixtures.signing import KeyPair, OpenRegistry, add_version

MakeAdapter = Callable[..., Any]


@pytest.fixture
def signed(open_registry: OpenRegistry, make_adapter: MakeAdapter, ours: KeyPair) -> list[str]:
    """Register two versions, both signed; return their ids."""
    registry = open_registry(key=ours)
    return [add_version(registry, make_adapter, seed) for seed in (0, 1)]


def find_signature(store: LocalStore, adapter_id: str, pair: KeyPair) -> Path:
    return store.root / "attestations" / adapter_id[7:] / "signatures" / f"{pair.id}.json"


def list_paths(registry: Registry, adapter_id: str, folder: Path) -> dict[str, Callable[[], object]]:
    """Return everything that loads version 1, or moves the champion to it."""

    def verify() -> None:
        for _, error in registry.verify_task("reviews"):
            if error is not None:
                raise error

    return {
        "fetch": lambda: registry.fetch(adapter_id),
        "export": lambda: registry.export(adapter_id, folder),
        "promote": lambda: registry.promote("reviews", 1, reason="a test"),
        "rollback": lambda: registry.rollback("reviews", reason="a test"),
        "verify": verify,
        "register": lambda: registry.register(
            "reviews", adapter_id, promote=False, judged_champion=2, reasons=()
        ),
    }


PATHS = ("fetch", "export", "promote", "rollback", "verify", "register")


@pytest.mark.parametrize("path", PATHS)
def test_what_is_signed_passes_everywhere(
    open_registry: OpenRegistry, signed: list[str], ours: KeyPair, tmp_path: Path, path: str
) -> None:
    list_paths(open_registry(key=ours), signed[0], tmp_path / "out")[path]()


@pytest.mark.parametrize("path", PATHS)
def test_a_signature_that_was_removed_is_missed_everywhere(
    open_registry: OpenRegistry,
    signed: list[str],
    ours: KeyPair,
    store: LocalStore,
    tmp_path: Path,
    path: str,
) -> None:
    registry = open_registry(key=ours)
    # What is in the cache already is judged anew.
    registry.fetch(signed[0])
    find_signature(store, signed[0], ours).unlink()
    with pytest.raises(AdapterRejectedError, match="it is not signed") as refusal:
        list_paths(registry, signed[0], tmp_path / "out")[path]()
    assert "lorry sign reviews" in refusal.value.todo
    assert not (tmp_path / "out").exists()
    assert registry.resolve("reviews").version == 2


def test_the_signature_of_another_adapter_does_not_pass(
    open_registry: OpenRegistry, signed: list[str], ours: KeyPair, store: LocalStore
) -> None:
    shutil.copyfile(find_signature(store, signed[1], ours), find_signature(store, signed[0], ours))
    with pytest.raises(AdapterRejectedError, match="a signature of other files"):
        open_registry().fetch(signed[0])


def test_a_signature_by_another_key_does_not_pass(
    open_registry: OpenRegistry, make_adapter: MakeAdapter, ours: KeyPair, theirs: KeyPair
) -> None:
    adapter_id = add_version(open_registry("none", key=theirs), make_adapter, 0)
    with pytest.raises(AdapterRejectedError, match=f"by no key trusted here: {theirs.id[:12]}"):
        open_registry().fetch(adapter_id)
    assert open_registry(trusted=(ours, theirs)).fetch(adapter_id).is_dir()


def test_a_signature_by_another_key_under_the_name_of_ours_does_not_pass(
    open_registry: OpenRegistry, make_adapter: MakeAdapter, ours: KeyPair, theirs: KeyPair, store: LocalStore
) -> None:
    adapter_id = add_version(open_registry("none", key=theirs), make_adapter, 0)
    forged = find_signature(store, adapter_id, theirs).rename(find_signature(store, adapter_id, ours))
    with pytest.raises(AdapterRejectedError, match="made by another key"):
        open_registry().fetch(adapter_id)
    bundle = json.loads(forged.read_text())
    bundle["verificationMaterial"]["publicKey"]["hint"] = ours.id
    forged.write_text(json.dumps(bundle))
    with pytest.raises(AdapterRejectedError, match="the signature is wrong"):
        open_registry().fetch(adapter_id)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b"\xff",
        b'{"verificationMaterial": 3}',
        b'{"verificationMaterial": {"publicKey": {"hint": ""}}}',
        pytest.param(b"x" * (2 << 20), id="huge"),
    ],
)
def test_what_is_no_signature_does_not_pass(
    open_registry: OpenRegistry,
    signed: list[str],
    ours: KeyPair,
    store: LocalStore,
    damage: bytes,
    capsys: pytest.CaptureFixture[str],
) -> None:
    find_signature(store, signed[0], ours).write_bytes(damage)
    with pytest.raises(AdapterRejectedError, match="its signature by ours"):
        open_registry().fetch(signed[0])
    assert capsys.readouterr().out == ""


def test_a_flipped_byte_in_each_part_of_a_signature_is_noticed(
    open_registry: OpenRegistry, signed: list[str], ours: KeyPair, store: LocalStore
) -> None:
    path = find_signature(store, signed[0], ours)
    original = json.loads(path.read_text())

    def flip(text: str) -> str:
        middle = len(text) // 2
        return text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]

    for damage in ("payload", "sig"):
        bundle = json.loads(json.dumps(original))
        envelope = bundle["dsseEnvelope"]
        holder = envelope if damage == "payload" else envelope["signatures"][0]
        holder[damage] = flip(holder[damage])
        path.write_text(json.dumps(bundle))
        with pytest.raises(AdapterRejectedError, match="its signature by ours"):
            open_registry().fetch(signed[0])
    path.write_text(json.dumps(original))
    assert open_registry().fetch(signed[0]).is_dir()


def test_no_policy_looks_at_no_signature(
    open_registry: OpenRegistry, signed: list[str], ours: KeyPair, store: LocalStore
) -> None:
    find_signature(store, signed[0], ours).write_bytes(b"forged")
    registry = open_registry("none")
    assert registry.fetch(signed[0]).is_dir()
    assert [error for _, error in registry.verify_task("reviews") if error] == []


def test_a_warning_is_given_once_for_each_adapter(
    open_registry: OpenRegistry,
    signed: list[str],
    ours: KeyPair,
    store: LocalStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for adapter_id in signed:
        find_signature(store, adapter_id, ours).unlink()
    registry = open_registry("warn")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            for adapter_id in signed:
                assert registry.fetch(adapter_id).is_dir()
    assert [record.getMessage().count("it is not signed") for record in caplog.records] == [1, 1]


def test_an_adapter_is_signed_before_it_exists(
    open_registry: OpenRegistry,
    make_adapter: MakeAdapter,
    ours: KeyPair,
    store: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry, adapter = open_registry(key=ours), make_adapter()

    def fail(*_: object) -> bytes:
        raise RuntimeError("no entropy")

    with monkeypatch.context() as patch:
        patch.setattr("lorry_registry.signing.adapter_signatures.sign_with_key", fail)
        with pytest.raises(RuntimeError):
            registry.publish(adapter.path, adapter.manifest)
    assert not (store.root / adapter_key(adapter.adapter_id) / "manifest.json").exists()
    registry.publish(adapter.path, adapter.manifest)
    registry.adapters.check_signatures(adapter.manifest)


def test_publishing_again_keeps_a_good_signature_and_replaces_a_forged_one(
    open_registry: OpenRegistry,
    make_adapter: MakeAdapter,
    signed: list[str],
    ours: KeyPair,
    store: LocalStore,
) -> None:
    registry, adapter = open_registry(key=ours), make_adapter()
    path = find_signature(store, signed[0], ours)
    before = path.read_bytes()
    registry.publish(adapter.path, adapter.manifest)
    assert path.read_bytes() == before
    path.write_bytes(b"forged")
    registry.publish(adapter.path, adapter.manifest)
    assert is_signed_by(adapter.manifest, path.read_bytes(), read_public_key(ours.public).key)


def test_writers_with_the_same_key_do_not_get_in_each_others_way(
    open_registry: OpenRegistry, make_adapter: MakeAdapter, ours: KeyPair
) -> None:
    adapter = make_adapter()
    registries = [open_registry(key=ours) for _ in range(16)]
    with ThreadPoolExecutor(len(registries)) as pool:
        ids = list(pool.map(lambda each: each.publish(adapter.path, adapter.manifest), registries))
    assert set(ids) == {adapter.adapter_id}
    open_registry().adapters.check_signatures(adapter.manifest)


def test_two_keys_sign_one_adapter(
    open_registry: OpenRegistry, signed: list[str], ours: KeyPair, theirs: KeyPair
) -> None:
    outcomes = list(sign_versions(open_registry("none", key=theirs), "reviews"))
    assert [outcome.is_new for outcome in outcomes] == [True, True]
    assert open_registry().adapters.find_signatures(signed[0]).list_names() == sorted([ours.id, theirs.id])
    for pair in (ours, theirs):
        assert open_registry("require", trusted=(pair,)).trust.is_checking
        open_registry(trusted=(pair,)).adapters.check_signatures(open_registry().read_manifest(signed[0]))


def test_nothing_is_written_that_every_reader_would_refuse(
    open_registry: OpenRegistry, make_adapter: MakeAdapter, store: LocalStore, theirs: KeyPair
) -> None:
    adapter = make_adapter()
    for registry, words in (
        (open_registry(), "no key to sign with"),
        (open_registry(key=theirs), "not among the trusted"),
    ):
        with pytest.raises(UsageError, match=words):
            registry.publish(adapter.path, adapter.manifest)
    assert list(store.root.rglob("*.safetensors")) == []


def test_old_adapters_are_signed_later_but_not_damaged_ones(
    open_registry: OpenRegistry, make_adapter: MakeAdapter, store: LocalStore, ours: KeyPair
) -> None:
    ids = [add_version(open_registry("none"), make_adapter, seed) for seed in (0, 1)]
    (store.root / adapter_key(ids[0]) / WEIGHTS_NAME).unlink()
    registry = open_registry(key=ours)
    with pytest.raises(LorryError, match="not signed"):
        registry.resolve("reviews")
    first, second = sign_versions(registry, "reviews")
    assert isinstance(first.problem, AdapterRejectedError)
    assert second.is_new
    event = attest_history(registry, "reviews", reason="looked at it")
    assert event is not None
    assert event.details["events"] == 2
    assert attest_history(registry, "reviews", reason="again") is None
    reader = open_registry()
    assert reader.resolve("reviews").adapter_id == ids[1]
    assert reader.fetch(ids[1]).is_dir()
    with pytest.raises(AdapterRejectedError):
        reader.fetch(ids[0])
