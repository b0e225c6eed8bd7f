"""What was written in each format is read today, and says the same: adapters, ledgers, task files, data.

The data were written by ``freeze.py``, whose docstring tells what lies where. They are never changed.
"""

import base64
import importlib
import io
import json
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.utils import logging as transformers_logging

from lorry_components.inference import load_adapter
from lorry_components.methods import METHODS
from lorry_components.models.bases import resolve_base
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.task_types import TASK_TYPES
from lorry_components.tasks import changes
from lorry_components.tasks.code_versions import list_code_versions
from lorry_components.tasks.definition import load_task_file
from lorry_components.tasks.resolution import resolve_task
from lorry_components.tasks.staleness import assess_staleness
from lorry_registry.adapters.verification import verify_adapter
from lorry_registry.ledger.promotion import find_version
from lorry_registry.records.training_record import read_record
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import TaskSpec

HERE = Path(__file__).parent
FORMATS = sorted((path.parent.name for path in HERE.glob("*/ledger.json")), key=int)
TOLERANCE = 1e-4
# Method or kind -> what it needs beside the libraries of all others.
EXTRAS = {"qlora": "bitsandbytes", "image-generation": "diffusers"}
# Methods and kinds of which the newest format has no frozen adapter -> why.
NOT_FROZEN: Mapping[str, str] = {}


@dataclass(frozen=True)
class Frozen:
    """What was frozen in a format, copied to a folder of the tests'."""

    folder: Path

    @cached_property
    def registry(self) -> Registry:
        return Registry(LocalStore(self.folder / "store"), self.folder / "cache")

    @cached_property
    def ledger(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder / "ledger.json").read_text("utf-8"))
        return document


@dataclass(frozen=True)
class Adapter:
    """One of its adapters.

    Attributes:
        frozen: What was frozen in its format.
        folder: The folder of its task file and of what is expected.
        expected: What is expected of it.
    """

    frozen: Frozen
    folder: Path
    expected: Mapping[str, Any]

    def fetch(self) -> Path:
        return self.frozen.registry.fetch(self.expected["adapter_id"])

    def read_task(self) -> TaskSpec:
        return load_task_file(self.folder / "task.yaml")

    def skip_without_extras(self) -> None:
        for name in (self.expected["method"], self.expected["kind"]):
            if name in EXTRAS:
                pytest.importorskip(
                    EXTRAS[name], reason=f"{EXTRAS[name]}, which {name} needs, is not installed"
                )


@pytest.fixture(autouse=True, scope="module")
def calm_libraries() -> None:
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Frozen]]:
    """Copy what all versions froze to where it was not written, and make their bases importable there."""
    root = tmp_path_factory.mktemp("frozen")
    found = {version: Frozen(root / version) for version in FORMATS}
    for version, frozen in found.items():
        shutil.copytree(HERE / version, frozen.folder)
        sys.path.append(str(frozen.folder))
    importlib.invalidate_caches()
    yield found
    for frozen in found.values():
        sys.path.remove(str(frozen.folder))


@pytest.fixture(params=FORMATS)
def frozen(request: pytest.FixtureRequest, copies: Mapping[str, Frozen]) -> Frozen:
    return copies[request.param]


@pytest.fixture(
    params=[
        path.parent for version in FORMATS for path in sorted((HERE / version).glob("adapters/*/task.yaml"))
    ],
    ids=lambda folder: f"{folder.parent.parent.name}-{folder.name}",
)
def adapter(request: pytest.FixtureRequest, copies: Mapping[str, Frozen]) -> Adapter:
    original: Path = request.param
    frozen = copies[original.parent.parent.name]
    folder = frozen.folder / "adapters" / original.name
    return Adapter(frozen, folder, json.loads((folder / "expected.json").read_text("utf-8")))


# Adapters


def test_it_is_the_adapter_that_was_registered(adapter: Adapter) -> None:
    manifest = verify_adapter(adapter.fetch(), expected_id=adapter.expected["adapter_id"])
    assert {
        "task": manifest.task,
        "kind": manifest.kind,
        "method": manifest.method,
        "adapter_id": manifest.adapter_id,
        "base_fingerprint": manifest.base.fingerprint,
        "source_digest": manifest.inputs.source_digest,
        "data_digest": manifest.inputs.data_digest,
        "recipe_digest": manifest.inputs.recipe_digest,
    }.items() <= adapter.expected.items()
    found = adapter.frozen.registry.resolve(manifest.task, adapter.expected["version"])
    assert found.adapter_id == manifest.adapter_id
    assert found.manifest == manifest


def test_its_training_record_is_read(adapter: Adapter) -> None:
    registry, expected = adapter.frozen.registry, adapter.expected
    events = registry.ledger.read_history(expected["task"])
    registered = find_version(events, expected["version"], task=expected["task"]).registered
    record = read_record(registry.store, registry.read_manifest(expected["adapter_id"]), registered)
    assert record.data is not None, record.problem
    assert record.facts is not None
    assert record.data.splits["train"].rows == record.facts.examples


def test_it_predicts_what_it_predicted(adapter: Adapter) -> None:
    adapter.skip_without_extras()
    expected, rows = adapter.expected, adapter.expected["rows"]
    predictor = load_adapter(adapter.fetch(), expected_id=expected["adapter_id"]).predictor
    found = {
        "predictions": predictor.predict(rows),
        "outputs": predictor.compute_outputs(rows).tolist(),
        "base_outputs": predictor.compute_base_outputs(rows).tolist(),
    }
    assert list(find_differences(found, {name: expected[name] for name in found})) == []


def test_its_task_is_read_as_it_was(adapter: Adapter, tmp_path: Path) -> None:
    adapter.skip_without_extras()
    expected, spec = adapter.expected, adapter.read_task()
    assert (spec.name, spec.kind, spec.method.name) == tuple(
        expected[name] for name in ("task", "kind", "method")
    )
    assert spec.recipe_digest == expected["recipe_digest"]
    assert resolve_base(spec.base).identity.fingerprint == expected["base_fingerprint"]
    card = prepare_data(resolve_task(spec), tmp_path / "data")
    assert (card.source_digest, card.data_digest) == (expected["source_digest"], expected["data_digest"])


def test_it_need_not_be_trained_again(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a raised version of the code makes it stale: neither how it is read nor a default does."""
    recorded = adapter.frozen.registry.read_manifest(adapter.expected["adapter_id"]).inputs.makeup.code
    present = list_code_versions(adapter.read_task())
    assert all(version <= present[part] for part, version in recorded.items())
    monkeypatch.setattr(changes, "list_code_versions", lambda _spec: {**present, **recorded})
    staleness = assess_staleness(resolve_task(adapter.read_task()), adapter.frozen.registry)
    assert (staleness.is_stale, staleness.version) == (False, adapter.expected["version"]), staleness.reason


# Ledgers


def test_every_adapter_of_the_store_is_whole(frozen: Frozen) -> None:
    tasks = [entry.task for entry in frozen.registry.list_tasks()]
    verified = [found for task in tasks for found in frozen.registry.verify_task(task)]
    assert [error for _, error in verified if error] == []
    stored = {f"sha256:{path.name}" for path in (frozen.folder / "store" / "adapters").iterdir()}
    assert {version.adapter_id for version, _ in verified} == stored


def test_the_ledger_is_read_as_it_was(frozen: Frozen) -> None:
    registry = frozen.registry
    found = {
        entry.task: {
            "champion": entry.champion and entry.champion.model_dump(mode="json"),
            "versions": {
                str(version.number): version.adapter_id for version in registry.list_versions(entry.task)
            },
            "events": [
                {**event.model_dump(mode="json"), "digest": event.digest}
                for event in registry.ledger.read_history(entry.task)
            ],
        }
        for entry in registry.list_tasks()
    }
    assert found == frozen.ledger
    for task, recorded in frozen.ledger.items():
        if recorded["champion"] is not None:
            resolved = registry.resolve(task)
            assert (resolved.version, resolved.adapter_id) == (
                recorded["champion"]["version"],
                recorded["champion"]["adapter_id"],
            )


def test_a_ledger_with_a_history_goes_on(frozen: Frozen, tmp_path: Path) -> None:
    shutil.copytree(frozen.folder / "store", tmp_path / "store")
    registry = Registry(LocalStore(tmp_path / "store"), tmp_path / "cache")
    task = max(frozen.ledger, key=lambda name: len(frozen.ledger[name]["events"]))
    events = frozen.ledger[task]["events"]
    # A challenger that was refused, promoted by hand and taken back.
    assert [event["action"] for event in events] == [*["register"] * 3, "promote", "rollback"]
    assert [event["champion_after"] for event in events] == [1, 2, 2, 3, 2]
    assert registry.rollback(task, reason="further back").champion_after == 1
    assert registry.promote(task, 3, reason="once more").champion_before == 1
    history = registry.ledger.read_history(task)
    assert [event.digest for event in history[: len(events)]] == [event["digest"] for event in events]
    assert history[len(events)].previous == events[-1]["digest"]
    assert registry.resolve(task).version == 3


# What is frozen


def test_every_method_and_every_kind_is_frozen() -> None:
    assert FORMATS, "run freeze.py"
    expected = [
        json.loads(path.read_text("utf-8")) for path in HERE.glob(f"{FORMATS[-1]}/adapters/*/expected.json")
    ]
    known = {*METHODS, *TASK_TYPES}
    assert known - {adapter[part] for adapter in expected for part in ("method", "kind")} == NOT_FROZEN.keys()


# Comparing


def find_differences(found: Any, expected: Any, where: str = "") -> Iterator[str]:
    """Say where a document differs from another, numbers by more than the tolerance."""
    if isinstance(expected, float) and isinstance(found, float | int):
        if not np.isclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
            yield f"{where}: {found} instead of {expected}"
    elif isinstance(expected, Mapping) and isinstance(found, Mapping) and found.keys() == expected.keys():
        for name, value in expected.items():
            compare = find_image_differences if name == "image" else find_differences
            yield from compare(found[name], value, f"{where}.{name}")
    elif _is_list(expected) and _is_list(found) and len(found) == len(expected):
        for index, value in enumerate(expected):
            yield from find_differences(found[index], value, f"{where}[{index}]")
    elif found != expected:
        yield f"{where}: {found!r} instead of {expected!r}"


def find_image_differences(found: str, expected: str, where: str) -> Iterator[str]:
    """Say whether an image differs from another by more than rounding: not by the bytes of its file."""
    from PIL import Image

    pixels = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).astype(int) for text in (found, expected)
    ]
    if pixels[0].shape != pixels[1].shape:
        yield f"{where}: an image of shape {pixels[0].shape} instead of {pixels[1].shape}"
    elif (distance := np.abs(pixels[0] - pixels[1]).max()) > 1:
        yield f"{where}: pixels differ by {distance} of 255"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
