"""Nothing that stands in MLflow is taken for true: edits there are reported and set right."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import ConflictError, StoreError, TrackingError
from lorry_registry.ledger.registry_identity import read_or_create_id
from lorry_registry.manifest import ADAPTER_FILES, MANIFEST_NAME
from lorry_registry.mlflow.adoption import adopt_champion
from lorry_registry.mlflow.index import MlflowIndex, sync_aliases
from lorry_registry.mlflow.model_versions import LOADER
from lorry_registry.mlflow.repair import remove_twins, repair_versions, report_copies, restore_training
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

from fixtures.adapters import enroll, show_version

Make = Callable[..., Any]
TASK = "reviews"


@pytest.fixture
def record(index: MlflowIndex, registry: Registry, register_adapter: Make) -> Make:
    """Return a function that registers an adapter in the ledger and in MLflow; it returns its folder."""

    def register(seed: int, *, promote: bool = True) -> Any:
        adapter, event = register_adapter(seed=seed, promote=promote)
        index.claim_model(TASK, adapter.manifest, registry.registry_id)
        show_version(index, adapter, event.version, reasons=event.reasons, promoted=promote)
        sync_aliases(index, registry, TASK)
        return adapter

    return register


def read_alias(client: Any, alias: str = "champion") -> str:
    return str(client.get_registered_model(TASK).aliases[alias])


# Tags


def test_a_version_that_is_tagged_as_the_champion_does_not_become_it(
    index: MlflowIndex, registry: Registry, client: Any, record: Make
) -> None:
    first, second = record(1), record(2)
    client.set_model_version_tag(TASK, "1", "lorry.adapter_id", second.adapter_id)
    # Neither a registration nor a promotion follows the tag ...
    assert sync_aliases(index, registry, TASK) == []
    assert read_alias(client) == "2"
    # ... and a repair reports it, once.
    assert repair_versions(index, registry, TASK) == [
        f"the tag lorry.adapter_id of MLflow's version 1, which holds v1, was {second.adapter_id}, "
        f"and is now {first.adapter_id}"
    ]
    assert repair_versions(index, registry, TASK) == []


@pytest.mark.parametrize(
    ("tag", "value"), [("lorry.metric.pearson", "0.999"), ("lorry.version", "7"), ("lorry.decision", "yes")]
)
def test_every_tag_that_was_edited_is_set_right(
    index: MlflowIndex, registry: Registry, client: Any, record: Make, tag: str, value: str
) -> None:
    record(1)
    before = client.get_model_version(TASK, "1").tags
    client.set_model_version_tag(TASK, "1", tag, value)
    (change,) = repair_versions(index, registry, TASK)
    assert f"the tag {tag} of MLflow's version 1" in change
    assert client.get_model_version(TASK, "1").tags == before
    client.delete_model_version_tag(TASK, "1", tag)
    assert len(repair_versions(index, registry, TASK)) == 1
    assert client.get_model_version(TASK, "1").tags == before


def test_a_decision_that_changed_later_is_no_edit(
    index: MlflowIndex, registry: Registry, client: Any, record: Make
) -> None:
    record(1)
    record(2, promote=False)
    registry.promote(TASK, 2, reason="it passed after all")
    client.set_model_version_tag(TASK, "2", "lorry.decision", "promoted")
    assert repair_versions(index, registry, TASK) == []


# Files


def test_a_version_whose_files_were_exchanged_is_no_longer_that_adapter(
    index: MlflowIndex, registry: Registry, client: Any, record: Make
) -> None:
    first, second = record(1), record(2)
    document = f"flavors: {{lorry: {{adapter_id: '{second.adapter_id}'}}}}\n"
    (second.path / "MLmodel").write_text(document, "utf-8")
    for name in (*ADAPTER_FILES, MANIFEST_NAME):
        shutil.copyfile(first.path / name, second.path / name)
    (change,) = repair_versions(index, registry, TASK)
    assert f"MLflow's version 2 was recorded as adapter {second.adapter_id}" in change
    assert index.find_version(TASK, second.adapter_id) is None
    with pytest.raises(TrackingError, match=f"MLflow has no version of {second.adapter_id}"):
        sync_aliases(index, registry, TASK)
    assert "champion" not in client.get_registered_model(TASK).aliases


def test_a_version_with_all_files_of_another_adapter_is_shown_as_that_one(
    index: MlflowIndex, registry: Registry, client: Any, record: Make
) -> None:
    first, second = record(1), record(2)
    for name in (*ADAPTER_FILES, MANIFEST_NAME):
        shutil.copyfile(first.path / name, second.path / name)
    assert any("lorry.adapter_id" in change for change in repair_versions(index, registry, TASK))
    assert client.get_model_version(TASK, "2").tags["lorry.adapter_id"] == first.adapter_id
    assert index.find_version(TASK, second.adapter_id) is None


def test_twins_of_an_adapter_go_and_what_is_not_ours_stays(
    index: MlflowIndex, registry: Registry, client: Any, record: Make
) -> None:
    first, second = record(1), record(2)
    known = client.get_model_version(TASK, "1")
    # As when the answer to a creation is lost, and the request is sent again.
    client.create_model_version(TASK, known.source, tags=known.tags)
    client.create_model_version(TASK, known.source)
    assert remove_twins(index, registry, TASK) == [
        "MLflow's version 3 held the same adapter as version 1, and was removed"
    ]
    assert sorted(str(each.version) for each in index.list_model_versions(TASK)) == ["1", "2", "4"]
    assert index.find_version(TASK, first.adapter_id) == "1"
    assert index.find_version(TASK, second.adapter_id) == "2"
    assert remove_twins(index, registry, TASK) == []
    # MLflow's client sends a removal again when its answer is lost.
    index.remove_version(TASK, "3")


@pytest.mark.parametrize(
    "document",
    [
        "flavors: {python_function: {loader_module: evil}, lorry: {adapter_id: '%s'}}",
        f"flavors: {{python_function: {{loader_module: {LOADER}, code: code}}, lorry: {{adapter_id: '%s'}}}}",
        "flavors: {lorry: {}} # %s",
        "flavors: 3 # %s",
        "[ # %s",
        "flavors: {lorry: {adapter_id: 'sha256:other'}} # %s",
    ],
)
def test_an_mlmodel_that_names_foreign_code_or_nothing_is_no_adapter(
    index: MlflowIndex, record: Make, document: str
) -> None:
    adapter = record(1)
    (adapter.path / "MLmodel").write_text(document % adapter.adapter_id, "utf-8")
    assert index.find_version(TASK, adapter.adapter_id) is None


def test_files_that_are_gone_or_too_large_are_no_adapter(index: MlflowIndex, record: Make) -> None:
    first, second = record(1), record(2)
    shutil.rmtree(first.path)
    (second.path / MANIFEST_NAME).write_bytes(b" " * ((4 << 20) + 1))
    assert index.find_version(TASK, first.adapter_id) is None
    assert index.find_version(TASK, second.adapter_id) is None


def test_a_version_of_somebody_elses_in_our_model_is_left_alone(
    index: MlflowIndex, registry: Registry, client: Any, record: Make, tmp_path: Path
) -> None:
    record(1)
    client.create_model_version(TASK, (tmp_path / "theirs").as_uri(), tags={"team": "theirs"})
    assert repair_versions(index, registry, TASK) == []
    assert client.get_model_version(TASK, "2").tags == {"team": "theirs"}


# Whose a registered model is


@pytest.fixture
def theirs(client: Any, tmp_path: Path) -> Callable[[], Any]:
    """Make a registered model of the same name, as somebody else would; return a function that reads it."""
    client.create_registered_model(TASK, {"team": "theirs"}, "ours")
    client.create_model_version(TASK, tmp_path.as_uri())
    client.set_registered_model_alias(TASK, "champion", "1")

    def read() -> Any:
        model = client.get_registered_model(TASK)
        return dict(model.tags), dict(model.aliases), model.description, len(model.latest_versions)

    return read


def test_a_registered_model_of_somebody_elses_is_refused_and_not_touched(
    index: MlflowIndex, registry: Registry, theirs: Callable[[], Any], register_adapter: Make
) -> None:
    before = theirs()
    adapter, _ = register_adapter(promote=False)
    attempts: list[Callable[[], object]] = [
        lambda: sync_aliases(index, registry, TASK),
        lambda: index.set_aliases(TASK, None, None),
        lambda: index.claim_model(TASK, adapter.manifest, registry.registry_id),
        lambda: adopt_champion(index, registry, TASK),
        lambda: show_version(index, adapter, promoted=False),
    ]
    for attempt in attempts:
        with pytest.raises(TrackingError, match="a registered model named 'reviews' exists") as caught:
            attempt()
        assert "rename that model" in caught.value.todo
    assert theirs() == before


def test_two_registries_do_not_mix_in_one_mlflow(
    index: MlflowIndex, registry: Registry, client: Any, record: Make, tmp_path: Path
) -> None:
    adapter = record(1)
    other = Registry(LocalStore(tmp_path / "other"), tmp_path / "other-cache")
    enroll(other, adapter, promote=False)
    for attempt in (
        lambda: sync_aliases(index, other, TASK),
        lambda: index.claim_model(TASK, adapter.manifest, other.registry_id),
    ):
        with pytest.raises(TrackingError, match="belongs to another registry") as caught:
            attempt()
        assert registry.registry_id in str(caught.value)
    assert client.get_registered_model(TASK).tags["lorry.registry"] == registry.registry_id
    assert read_alias(client) == "1"


def test_a_registered_model_without_a_registry_is_claimed(
    index: MlflowIndex, registry: Registry, client: Any, make_adapter: Make
) -> None:
    client.create_registered_model(TASK, {"lorry.task": TASK})
    index.claim_model(TASK, make_adapter().manifest, registry.registry_id)
    assert client.get_registered_model(TASK).tags["lorry.registry"] == registry.registry_id
    with pytest.raises(TrackingError, match="belongs to another registry"):
        index.claim_model(TASK, make_adapter().manifest, "0" * 32)


# The id of a registry


def test_of_two_that_create_the_id_the_first_decides(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, ids = LocalStore.create, []

    def create(self: LocalStore, key: str, content: bytes) -> None:
        if not ids:
            ids.append("")
            ids.append(read_or_create_id(self))
        original(self, key, content)

    monkeypatch.setattr(LocalStore, "create", create)
    assert read_or_create_id(store) == ids[1]


def test_an_id_that_was_changed_is_an_error(store: LocalStore) -> None:
    store.create("registry.json", b"{}")
    with pytest.raises(StoreError, match="not the id of a registry"):
        read_or_create_id(store)


# A champion that was chosen in MLflow


def test_an_alias_that_a_person_moved_becomes_an_event_of_the_ledger(
    index: MlflowIndex, registry: Registry, client: Any, record: Make
) -> None:
    record(1)
    record(2)
    assert adopt_champion(index, registry, TASK) is None
    client.set_registered_model_alias(TASK, "champion", "1")
    event = adopt_champion(index, registry, TASK)
    assert event is not None
    assert (event.action, event.champion_before, event.champion_after) == ("promote", 2, 1)
    assert event.reasons == ("the alias champion was moved to MLflow's version 1 in MLflow",)
    assert registry.ledger.read_history(TASK)[-1] == event
    assert adopt_champion(index, registry, TASK) is None
    sync_aliases(index, registry, TASK)
    assert read_alias(client) == "1"


def test_an_mlflow_that_is_merely_behind_moves_nothing(
    index: MlflowIndex, registry: Registry, record: Make
) -> None:
    record(1)
    record(2)
    registry.rollback(TASK, reason="MLflow was down")
    assert adopt_champion(index, registry, TASK) is None
    assert registry.resolve(TASK).version == 1


def test_an_alias_is_not_adopted_over_a_ledger_that_has_moved_as_well(
    index: MlflowIndex, registry: Registry, client: Any, record: Make
) -> None:
    for seed in (1, 2, 3):
        record(seed)
    registry.promote(TASK, 2, reason="MLflow was down")
    client.set_registered_model_alias(TASK, "champion", "1")
    with pytest.raises(ConflictError, match="have both moved"):
        adopt_champion(index, registry, TASK)
    assert registry.resolve(TASK).version == 2


def test_an_alias_on_what_is_no_adapter_of_the_task_is_not_adopted(
    index: MlflowIndex, registry: Registry, client: Any, record: Make, tmp_path: Path
) -> None:
    adapter = record(1)
    tags = {"lorry.adapter_id": adapter.adapter_id}
    client.create_model_version(TASK, (tmp_path / "theirs").as_uri(), tags=tags)
    client.set_registered_model_alias(TASK, "champion", "2")
    with pytest.raises(ConflictError, match="holds no adapter of this task"):
        adopt_champion(index, registry, TASK)


def test_an_alias_that_was_removed_is_not_adopted(
    index: MlflowIndex, registry: Registry, client: Any, record: Make
) -> None:
    record(1)
    client.delete_registered_model_alias(TASK, "champion")
    assert adopt_champion(index, registry, TASK) is None
    assert len(sync_aliases(index, registry, TASK)) == 1


# Experiments


def test_somebody_elses_experiment_is_left_as_it_is(index: MlflowIndex, client: Any) -> None:
    experiment_id = client.create_experiment(TASK)
    for ask in (index.ensure_experiment, index.check_experiment):
        with pytest.raises(
            TrackingError, match="an experiment named 'reviews' exists that Lorry did not make"
        ):
            ask(TASK)
    with pytest.raises(TrackingError, match="rename that experiment"):
        index.open_run(TASK, name="r", tags={})
    assert client.search_runs([experiment_id]) == []
    # Its owner may say that it is Lorry's.
    client.set_experiment_tag(experiment_id, "lorry.task", TASK)
    assert index.ensure_experiment(TASK) == experiment_id


def test_another_registrys_experiment_is_left_as_it_is(index: MlflowIndex, client: Any) -> None:
    mine, others = "a" * 32, "b" * 32
    experiment_id = index.ensure_experiment(TASK, mine)
    assert client.get_experiment(experiment_id).tags["lorry.registry"] == mine
    assert index.ensure_experiment(TASK, mine) == experiment_id
    with pytest.raises(
        TrackingError, match=f"belongs to another registry .{mine}., and this one is {others}"
    ):
        index.open_run(TASK, name="r", tags={}, registry_id=others)
    assert client.search_runs([experiment_id]) == []


def test_an_experiment_without_a_registry_becomes_the_registrys(index: MlflowIndex, client: Any) -> None:
    experiment_id = client.create_experiment(TASK, tags={"lorry.task": TASK})
    assert index.ensure_experiment(TASK, "a" * 32) == experiment_id
    assert client.get_experiment(experiment_id).tags["lorry.registry"] == "a" * 32
    with pytest.raises(TrackingError, match="belongs to another registry"):
        index.check_experiment(TASK, "b" * 32)


# What was deleted or copied


@pytest.fixture
def trained_champion(index: MlflowIndex, registry: Registry, register_adapter: Make) -> str:
    """Register a champion in the ledger and in MLflow; return the run that trained it."""
    adapter, event = register_adapter(seed=1, promote=True)
    index.claim_model(TASK, adapter.manifest, registry.registry_id)
    run_id = index.open_run(TASK, name="training", tags={}, registry_id=registry.registry_id)
    show_version(index, adapter, event.version, run_id=run_id, reasons=event.reasons)
    assert restore_training(index, registry, TASK) == []
    return run_id


def test_the_champions_deleted_run_is_restored(
    index: MlflowIndex, registry: Registry, client: Any, trained_champion: str
) -> None:
    client.delete_run(trained_champion)
    assert restore_training(index, registry, TASK) == [
        "the run that trained the champion, v1, was deleted in MLflow, and is restored now"
    ]
    assert client.get_run(trained_champion).info.lifecycle_stage == "active"
    assert restore_training(index, registry, TASK) == []


def test_a_deleted_experiment_is_restored_with_its_runs(
    index: MlflowIndex, registry: Registry, client: Any, trained_champion: str
) -> None:
    client.delete_experiment(client.get_experiment_by_name(TASK).experiment_id)
    first, *_ = restore_training(index, registry, TASK)
    assert first == "the experiment was deleted in MLflow, and is restored now"
    assert client.get_run(trained_champion).info.lifecycle_stage == "active"
    assert restore_training(index, registry, TASK) == []
    index.check_experiment(TASK, registry.registry_id)


def test_somebody_elses_deleted_experiment_stays_deleted(
    index: MlflowIndex, registry: Registry, client: Any, trained_champion: str
) -> None:
    experiment = client.get_experiment_by_name(TASK).experiment_id
    client.set_experiment_tag(experiment, "lorry.registry", "another")
    client.delete_experiment(experiment)
    with pytest.raises(TrackingError, match="belongs to another registry"):
        restore_training(index, registry, TASK)
    assert client.get_experiment(experiment).lifecycle_stage == "deleted"


def test_a_run_that_is_gone_for_good_is_reported(
    index: MlflowIndex, registry: Registry, trained_champion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MLflow's own command for it works on a whole database.
    monkeypatch.setattr(index, "find_run", lambda *_: "0" * 32)
    (line,) = restore_training(index, registry, TASK)
    assert line.endswith("was deleted in MLflow, and cannot be restored: its curves are lost")


def test_a_copy_under_another_name_is_reported_and_left(
    index: MlflowIndex, registry: Registry, client: Any, record: Make
) -> None:
    record(1)
    assert report_copies(index, TASK) == []
    client.create_registered_model("production")
    tags = client.get_model_version(TASK, "1").tags
    client.create_model_version("production", client.get_model_version(TASK, "1").source, tags=tags)
    (line,) = report_copies(index, TASK)
    assert line.startswith("version 1 of the registered model 'production' is a copy and has the tags of v1")
    assert "remove its tags, or the copy" in line
    assert client.get_model_version("production", "1").tags == tags
