"""What somebody may plant in a store: each attack is refused with a clear error, and nothing hangs."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from lorry_registry.adapters.verification import (
    read_config,
    read_manifest,
    read_tensor_entries,
    verify_adapter,
)
from lorry_registry.errors import AdapterRejectedError, LorryError, StoreError
from lorry_registry.files.digests import canonical_json
from lorry_registry.manifest import (
    ADAPTER_FILES,
    CONFIG_NAME,
    MANIFEST_NAME,
    WEIGHTS_NAME,
    Manifest,
)
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

Make = Callable[..., Any]
Run = Callable[..., Result]
StoredFile = Callable[[str, str], Path]
HEAD, EVENT = "tasks/reviews/head.json", "tasks/reviews/history/00000001.json"


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """End a test that hangs."""

    def fail(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _put_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _put_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def _put_endless_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


PLANTS = [_put_pipe, _put_link, _put_endless_device, _put_folder, _truncate]


@pytest.mark.parametrize("name", [*ADAPTER_FILES, MANIFEST_NAME])
@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_for_an_adapters_file_is_refused_by_every_reader(
    registry: Registry,
    register_adapter: Make,
    stored_file: StoredFile,
    tmp_path: Path,
    name: str,
    plant: Callable[[Path], None],
) -> None:
    adapter, _ = register_adapter()
    plant(stored_file(adapter.adapter_id, name))
    (problem,) = [error for _, error in registry.verify_task("reviews")]
    assert isinstance(problem, LorryError)
    with pytest.raises(LorryError):
        registry.fetch(adapter.adapter_id)
    with pytest.raises(LorryError):
        registry.export(adapter.adapter_id, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    with pytest.raises(AdapterRejectedError):
        verify_adapter(stored_file(adapter.adapter_id, name).parent)


@pytest.mark.parametrize("key", [HEAD, EVENT])
@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_for_a_ledgers_file_is_refused_and_hides_no_other_task(
    registry: Registry,
    register_adapter: Make,
    store: LocalStore,
    lorry: Run,
    key: str,
    plant: Callable[[Path], None],
) -> None:
    for seed in (1, 2):
        register_adapter(seed=seed)
    register_adapter("films")
    plant(store.root / key)
    with pytest.raises(StoreError):
        registry.ledger.read_history("reviews")
    checks = json.loads(lorry("verify", "--all", "--json", code=StoreError.exit_code).stdout)
    assert [(check["task"], check["ok"]) for check in checks] == [("films", True), ("reviews", False)]


@pytest.mark.parametrize("name", [CONFIG_NAME, MANIFEST_NAME, WEIGHTS_NAME])
def test_a_pipe_is_refused_by_who_reads_one_file_alone(make_adapter: Make, name: str) -> None:
    folder = make_adapter().path
    _put_pipe(folder / name)
    read: Callable[[], object] = {
        CONFIG_NAME: lambda: read_config(folder),
        MANIFEST_NAME: lambda: read_manifest(folder),
        WEIGHTS_NAME: lambda: read_tensor_entries(folder / WEIGHTS_NAME),
    }[name]
    with pytest.raises(AdapterRejectedError, match="not a regular file"):
        read()


# Manifests


def _rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    change(document)
    (folder / MANIFEST_NAME).write_bytes(canonical_json(document))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: it["files"][0].update(name="../outside"), "is not a plain file name"),
        (lambda it: it.update(surprise=1), "surprise Extra inputs"),
        (lambda it: it["base"].update(trust_remote_code=True), "trust_remote_code Extra inputs"),
        (lambda it: it["files"].append(it["files"][0]), "an adapter has the files"),
        (lambda it: it["files"].pop(), "an adapter has the files"),
    ],
)
def test_a_manifest_with_names_or_keys_that_do_not_belong_is_refused(
    make_adapter: Make, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    folder = make_adapter().path
    _rewrite(folder, change)
    with pytest.raises(AdapterRejectedError, match=said):
        verify_adapter(folder)


def test_a_manifest_nested_too_deep_is_refused(make_adapter: Make) -> None:
    adapter = make_adapter()
    (adapter.path / MANIFEST_NAME).write_bytes(b'{"recipe":' + b"[" * 100_000)
    with pytest.raises(AdapterRejectedError, match="not a manifest"):
        verify_adapter(adapter.path)
    with pytest.raises(AdapterRejectedError, match="not a manifest"):
        Manifest.parse(b"[" * 100_000, where="x")


# Ledgers


@pytest.mark.parametrize(
    "details",
    [
        '{"loss":NaN}',
        '{"loss":Infinity}',
        '{"x":"\\ud800"}',
        f'{{"x":{"9" * 5000}}}',
        '{"x":' + "[" * 100_000,
        f'{{"x":{"[" * 190}{"]" * 190}}}',
    ],
    ids=["nan", "infinity", "half a pair", "long number", "nested and cut", "nested"],
)
def test_an_event_with_details_that_no_document_has_is_a_clear_error(
    registry: Registry, register_adapter: Make, store: LocalStore, details: str
) -> None:
    for seed in (1, 2):
        register_adapter(seed=seed)
    text = (store.root / EVENT).read_text("utf-8")
    assert '"details":{}' in text
    (store.root / EVENT).write_text(text.replace('"details":{}', f'"details":{details}'), "utf-8")
    with pytest.raises(StoreError):
        registry.ledger.read_history("reviews")


@pytest.mark.parametrize("key", [HEAD, EVENT])
def test_a_ledger_document_with_an_unknown_key_is_refused(
    registry: Registry, register_adapter: Make, store: LocalStore, key: str
) -> None:
    for seed in (1, 2):
        register_adapter(seed=seed)
    document = json.loads((store.root / key).read_bytes())
    (store.root / key).write_bytes(canonical_json(document | {"surprise": 1}))
    with pytest.raises(StoreError, match="Extra inputs"):
        registry.ledger.read_history("reviews")


# Addresses
