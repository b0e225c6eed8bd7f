"""What is served after a promotion, a rollback or a deletion, and when the new champion is refused."""

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from lorry_components.models.bases import resolve_base
from lorry_components.serving import catalogue as catalogues
from lorry_components.serving.application import Service
from lorry_components.serving.batching import Batcher
from lorry_components.serving.catalogue import Catalogue
from lorry_components.serving.engine import compute_batch
from lorry_components.serving.requests import Limits
from lorry_components.serving.shared_bases import SharedBases
from lorry_registry.errors import LorryError, StoreError
from lorry_registry.maintenance.task_deletion import delete_task, restore_task
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

FROZEN = max(Path(__file__).parents[3].glob("frozen/*/ledger.json")).parent
# Its champion is v2, to which it was rolled back from v3.
TASK, OTHER = "reviews-over-time", "likeness-lora"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.syspath_prepend(str(FROZEN))
    shutil.copytree(FROZEN / "store", tmp_path / "store")
    return Registry(LocalStore(tmp_path / "store"), tmp_path / "cache")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def catalogue(registry: Registry, said: list[str]) -> Catalogue:
    def report(task: str, found: Any) -> None:
        said.append(f"{task}: {found}" if isinstance(found, LorryError) else f"{task} v{found.version}")

    catalogue = Catalogue(registry, SharedBases(resolve_base), report)
    catalogue.load([TASK, OTHER])
    assert said == [f"{TASK} v2", f"{OTHER} v1"]
    said.clear()
    return catalogue


def ask(catalogue: Catalogue, path: str) -> httpx.Response:
    application = Service(catalogue, Batcher(compute_batch), Limits(), "test").build_application()

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            return await client.get(path)

    return asyncio.run(get())


def damage(registry: Registry, version: int) -> Path:
    path = registry.resolve(TASK, version).path
    assert path is not None
    weights = path / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    return weights


def test_a_promotion_and_a_rollback_are_followed(
    catalogue: Catalogue, registry: Registry, said: list[str]
) -> None:
    before = catalogue.find(TASK)
    registry.promote(TASK, 3, reason="to try it")
    catalogue.refresh()
    assert catalogue.find(TASK).version == 3
    registry.rollback(TASK, reason="it is worse")
    catalogue.refresh()
    assert said == [f"{TASK} v3", f"{TASK} v2"]
    # Who has found a version keeps it as it is.
    assert before.loaded.predictor.predict([{"text": "a good film"}])


def test_nothing_is_loaded_while_the_ledger_stays(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogues, "load_adapter", lambda *_args, **_kwargs: pytest.fail("loaded"))
    catalogue.refresh()
    assert not catalogue.refused


def test_rows_are_not_served_with_the_tokenizer_that_verifies(
    catalogue: Catalogue, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifying: list[Any] = []
    assemble = catalogue.bases.assemble

    def watch(*args: Any, **kwargs: Any) -> Any:
        predictor = assemble(*args, **kwargs)
        verifying.append(predictor.reader)
        return predictor

    monkeypatch.setattr(catalogue.bases, "assemble", watch)
    registry.promote(TASK, 3, reason="to try it")
    served_before = catalogue.find(TASK).loaded.predictor.reader
    catalogue.refresh()
    assert catalogue.find(TASK).loaded.predictor.reader is served_before
    assert [reader is served_before for reader in verifying] == [False]


def test_the_old_version_stays_when_the_new_one_is_refused(
    catalogue: Catalogue, registry: Registry, said: list[str]
) -> None:
    registry.promote(TASK, 3, reason="to try it")
    damage(registry, 3)
    catalogue.refresh()
    catalogue.refresh()
    assert catalogue.find(TASK).version == 2
    assert len(said) == 1
    assert said[0].startswith(f"{TASK}: ")
    ready = ask(catalogue, f"/v2/models/{TASK}/ready")
    assert ready.status_code == 200
    assert (ready.json()["version"], ready.json()["refused"]) == (2, str(catalogue.refused[TASK]))
    registry.rollback(TASK, reason="it is worse")
    catalogue.refresh()
    assert said[1:] == [f"{TASK} v2"]
    assert "refused" not in ask(catalogue, f"/v2/models/{TASK}/ready").json()


def test_a_rejected_adapter_is_loaded_again_when_it_is_promoted_again(
    catalogue: Catalogue, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[int] = []
    assemble = catalogue.bases.assemble

    def break_outputs(*args: Any, **kwargs: Any) -> Any:
        predictor = assemble(*args, **kwargs)
        loads.append(1)
        monkeypatch.setattr(predictor, "compute_outputs", lambda rows: compute(rows) + 1)
        compute = type(predictor).compute_outputs.__get__(predictor)
        return predictor

    monkeypatch.setattr(catalogue.bases, "assemble", break_outputs)
    registry.promote(TASK, 3, reason="to try it")
    catalogue.refresh()
    catalogue.refresh()
    assert len(loads) == 1
    assert catalogue.find(TASK).version == 2
    monkeypatch.setattr(catalogue.bases, "assemble", assemble)
    for move in (registry.rollback, lambda task, reason: registry.promote(task, 3, reason=reason)):
        move(TASK, reason="again")
        catalogue.refresh()
    assert catalogue.find(TASK).version == 3


def test_a_store_that_cannot_be_read_changes_nothing(
    catalogue: Catalogue, registry: Registry, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    def fail(*_args: Any) -> Any:
        raise StoreError("cannot be reached", where="s3://b")

    with monkeypatch.context() as patched:
        patched.setattr(registry, "resolve", fail)
        now = time.monotonic()
        patched.setattr(catalogues.time, "monotonic", lambda: now + 60)
        catalogue.refresh()
        assert catalogue.ledger_age >= 59
    assert len(said) == 2
    assert catalogue.find(TASK).version == 2
    catalogue.refresh()
    assert not catalogue.refused
    assert catalogue.ledger_age < 59


def test_an_error_of_a_library_refuses_one_task_alone(
    catalogue: Catalogue, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(catalogues, "load_adapter", fail)
    registry.promote(TASK, 3, reason="to try it")
    catalogue.refresh()
    assert "out of memory" in str(catalogue.refused[TASK])
    assert set(catalogue.versions) == {TASK, OTHER}


def test_a_deleted_task_is_served_no_more(catalogue: Catalogue, registry: Registry) -> None:
    delete_task(registry, TASK, reason="nobody needs it")
    catalogue.refresh()
    with pytest.raises(LorryError, match="deleted"):
        catalogue.find(TASK)
    assert ask(catalogue, f"/v2/models/{TASK}/ready").status_code == 404
    restore_task(registry, TASK, reason="somebody does")
    catalogue.refresh()
    assert catalogue.find(TASK).version == 2
