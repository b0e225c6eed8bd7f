"""Registration: the store, then the ledger, then MLflow, and each is complete or can be set right."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.data.prepared import load_card
from lorry_components.steps.finetune.run_inputs import list_parameters
from lorry_components.steps.gate.step import Decision
from lorry_components.steps.register.mlflow_publication import reconcile_task
from lorry_components.steps.register.step import Registration, register
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.adapters.stored_adapters import adapter_key
from lorry_registry.adapters.verification import verify_adapter
from lorry_registry.errors import StoreError, TrackingError
from lorry_registry.ledger.promotion import list_versions
from lorry_registry.manifest import ADAPTER_FILES, CARD_NAME, MANIFEST_NAME, WEIGHTS_NAME
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.records.training_record import read_card
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

FindTrained = Callable[..., Any]
TASK = "tiny-regression"


def enrol(
    found: Any,
    registry: Registry,
    *,
    passed: bool = True,
    judged: int | None = None,
    index: MlflowIndex | None = None,
    reasons: tuple[str, ...] = ("it is good",),
    **details: Any,
) -> Registration:
    decision = Decision(passed=passed, reasons=reasons, judged_champion=judged)
    return register(
        resolve_task(found.spec),
        found.candidate,
        found.report,
        decision,
        registry=registry,
        index=index,
        details=details,
    )


def check_store(registry: Registry, versions: int) -> None:
    found = list(registry.verify_task(TASK))
    assert [version.number for version, _ in found] == list(range(1, versions + 1))
    assert [error for _, error in found if error] == []


# The store and the ledger


def test_what_passed_becomes_the_champion(
    trained: FindTrained, registry: Registry, store: LocalStore
) -> None:
    found = trained()
    registration = enrol(found, registry, run="a-run", mlflow_run_id="123")
    event = registration.event
    assert (event.version, event.action, event.is_promotion) == (1, "register", True)
    assert event.reasons == ("it is good",)
    assert event.details == {
        "run": "a-run",
        "mlflow_run_id": "123",
        "gate": {"minimum_rows": 1, "baseline": "none", "primary": "pearson"},
        "training": {
            "learning_rate": found.summary.learning_rate,
            "steps": found.summary.steps,
            "examples": found.summary.examples,
            "seconds": round(found.summary.seconds, 1),
            "device": found.summary.device,
            "precision": found.summary.precision,
            "batch_size": found.spec.train.batch_size,
            # Those too that the task file leaves to their defaults.
            "options": list_parameters(found.spec)["method"]["options"],
            "kept_start": "",
        },
    }
    assert event.details["training"]["options"]["r"] == 4
    assert registration.warning == ""
    champion = registry.resolve(TASK)
    assert champion.manifest == registration.manifest
    assert champion.adapter_id == registration.manifest.adapter_id
    folder = store.root / adapter_key(champion.adapter_id)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*ADAPTER_FILES, MANIFEST_NAME])
    assert (folder / WEIGHTS_NAME).read_bytes() == (found.adapter / WEIGHTS_NAME).read_bytes()
    check_store(registry, 1)


def test_a_beginning_that_was_kept_is_recorded(trained: FindTrained, registry: Registry) -> None:
    found = trained()
    why = "pearson on validation was 0.500 when training began, and 0.400 in the end"
    found.summary.model_copy(update={"kept_start": why}).save(found.candidate)
    assert enrol(found, registry).event.details["training"]["kept_start"] == why


def test_the_data_card_is_kept_beside_the_adapter(trained: FindTrained, registry: Registry) -> None:
    found = trained()
    card = load_card(found.data)
    decision = Decision(passed=True, reasons=(), judged_champion=None)
    registration = register(
        resolve_task(found.spec),
        found.candidate,
        found.report,
        decision,
        registry=registry,
        index=None,
        details={},
        card=card,
    )
    kept = read_card(registry.store, registration.manifest, registration.event)
    assert kept is not None
    assert (kept.source, kept.warnings) == (card.source, card.warnings)
    assert {part: split.rows for part, split in kept.splits.items()} == {
        part: split.rows for part, split in card.splits.items()
    }
    check_store(registry, 1)


def test_the_manifest_says_what_was_learned_and_how_well(trained: FindTrained, registry: Registry) -> None:
    found = trained("classification")
    spec = found.spec.model_copy(update={"owner": "the team", "description": "How good a film is."})
    decision = Decision(passed=True, reasons=(), judged_champion=None)
    manifest = register(
        resolve_task(spec), found.candidate, found.report, decision, registry=registry, index=None, details={}
    ).manifest
    assert (manifest.task, manifest.kind, manifest.method) == (spec.name, spec.kind, "lora")
    assert (manifest.owner, manifest.description) == ("the team", "How good a film is.")
    assert manifest.recipe == spec.describe_recipe()
    assert manifest.base == found.summary.base
    assert manifest.inputs == found.summary.inputs
    assert manifest.labels == ("bad", "good", "mixed")
    assert manifest.parameters == found.summary.parameters
    assert manifest.evaluation == found.report.evaluation
    assert manifest.probe == found.report.probe
    assert manifest.libraries == found.summary.libraries


def test_the_card_tells_a_person_what_it_is(trained: FindTrained, registry: Registry) -> None:
    found = trained("classification")
    registration = enrol(found, registry)
    card = (registry.fetch(registration.event.adapter_id) / CARD_NAME).read_text("utf-8")
    metric = found.report.evaluation.headline
    assert f"base_model: {found.summary.base.model}" in card
    assert f"| accuracy (primary) | {metric.value:.3f} | {metric.low:.3f} to {metric.high:.3f} |" in card
    assert "Classes: bad, good, mixed." in card
    # What is below names the champion, which another version may be.
    assert f"While it is the champion of its task; `lorry history {found.spec.name}` tells" in card
    assert f"{found.summary.parameters.adapter:,} numbers in the adapter" in card
    assert "lorry predict tiny-classification" in card


def test_what_was_refused_is_a_challenger_with_its_reasons(trained: FindTrained, registry: Registry) -> None:
    enrol(trained(seed=0), registry)
    registration = enrol(
        trained(seed=1), registry, passed=False, judged=1, reasons=("below the minimum", "no gain")
    )
    assert registration.event.version == 2
    assert not registration.event.is_promotion
    assert registration.event.reasons == ("below the minimum", "no gain")
    assert registry.resolve(TASK).version == 1
    assert registry.resolve(TASK, 2).adapter_id == registration.event.adapter_id
    check_store(registry, 2)


def test_a_first_adapter_that_was_refused_leaves_the_task_without_a_champion(
    trained: FindTrained, registry: Registry
) -> None:
    enrol(trained(), registry, passed=False)
    entry = registry.describe_task(TASK)
    assert (entry.champion, entry.versions) == (None, 1)


def test_a_better_one_takes_over(trained: FindTrained, registry: Registry) -> None:
    enrol(trained(seed=0), registry)
    event = enrol(trained(seed=1), registry, judged=1).event
    assert (event.version, event.champion_before, event.champion_after) == (2, 1, 2)
    assert registry.resolve(TASK).version == 2


def test_a_champion_that_moved_meanwhile_is_not_overrun(trained: FindTrained, registry: Registry) -> None:
    enrol(trained(seed=0), registry)
    enrol(trained(seed=1), registry, judged=1)
    # Both were judged against v1; the second one comes too late.
    registration = enrol(trained(seed=2), registry, judged=1, reasons=("it beats v1",))
    event = registration.event
    assert event.version == 3
    assert not event.is_promotion
    assert event.reasons[1] == "it beats v1"
    assert event.reasons[0].startswith("the champion changed while it was judged")
    assert "the champion is now v2, but the gate compared with v1" in event.reasons[0]
    assert registry.resolve(TASK).version == 2
    check_store(registry, 3)


def test_a_first_adapter_that_comes_second_is_not_promoted(trained: FindTrained, registry: Registry) -> None:
    enrol(trained(seed=0), registry)
    event = enrol(trained(seed=1), registry, judged=None).event
    assert not event.is_promotion
    assert "the champion is now v1, but the gate compared with none" in event.reasons[0]


def test_registering_again_makes_no_second_version(trained: FindTrained, registry: Registry) -> None:
    first = enrol(trained(), registry, run="one")
    second = enrol(trained(), registry, run="two")
    assert second.event == first.event
    assert second.manifest == first.manifest
    check_store(registry, 1)


def test_what_was_refused_is_promoted_when_it_passes_later(trained: FindTrained, registry: Registry) -> None:
    enrol(trained(), registry, passed=False, reasons=("the minimum was too high",))
    event = enrol(trained(), registry, passed=True, reasons=("the minimum is lower now",)).event
    assert (event.action, event.version, event.is_promotion) == ("promote", 1, True)
    assert registry.resolve(TASK).version == 1
    check_store(registry, 1)


def test_a_store_that_cannot_be_written_registers_nothing(trained: FindTrained, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where a folder should be")
    registry = Registry(LocalStore(tmp_path / "store"), tmp_path / "cache")
    with pytest.raises(StoreError):
        enrol(trained(), registry)
    assert (tmp_path / "store").read_text() == "a file where a folder should be"


def test_candidates_that_are_registered_at_once_all_get_a_version(
    trained: FindTrained, registry: Registry
) -> None:
    # The first one alone can have been promoted; none may be lost.
    candidates = [trained(seed=seed) for seed in range(4)]
    barrier = threading.Barrier(len(candidates))
    registrations: list[Registration] = []
    problems: list[Exception] = []

    def start(found: Any) -> None:
        barrier.wait()
        try:
            registrations.append(enrol(found, registry))
        except Exception as error:  # noqa: BLE001 - told below
            problems.append(error)

    threads = [threading.Thread(target=start, args=(found,)) for found in candidates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert sorted(registration.event.version for registration in registrations) == [1, 2, 3, 4]
    promoted = [registration.event for registration in registrations if registration.event.is_promotion]
    assert len(promoted) == 1
    assert registry.resolve(TASK).version == promoted[0].version
    check_store(registry, 4)


def test_a_challenger_in_between_does_not_cost_the_promotion(
    trained: FindTrained, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The champion is still the one that was judged; only the task's head moved on.
    enrol(trained(seed=0), registry)
    read_manifest, intruders = registry.read_manifest, [trained(seed=2)]
    compare_and_swap = registry.store.compare_and_swap

    def interfere(key: str, content: bytes, expected: str | None) -> str:
        if intruders:
            enrol(
                intruders.pop(),
                Registry(registry.store, registry.adapters.cache.folder),
                passed=False,
                judged=1,
            )
        return compare_and_swap(key, content, expected)

    monkeypatch.setattr(registry.store, "compare_and_swap", interfere)
    event = enrol(trained(seed=1), registry, judged=1).event
    assert (event.version, event.is_promotion) == (3, True)
    assert event.reasons == ("it is good",)
    assert read_manifest(event.adapter_id).task == TASK
    check_store(registry, 3)


# MLflow


@pytest.fixture
def index(mlflow_uri: str) -> MlflowIndex:
    return MlflowIndex(mlflow_uri)


def read_versions(index: MlflowIndex) -> dict[str, Any]:
    """Return our version number -> MLflow's version."""
    found = index._client.search_model_versions(f"name = '{TASK}'")
    return {version.tags["lorry.version"]: version for version in found}


def test_mlflow_shows_what_the_ledger_says(
    trained: FindTrained, registry: Registry, index: MlflowIndex
) -> None:
    first = enrol(trained(seed=0), registry, index=index)
    second = enrol(trained(seed=1), registry, judged=1, passed=False, index=index)
    assert (first.warning, second.warning) == ("", "")
    assert index.read_aliases(TASK) == {
        "champion": first.event.adapter_id,
        "challenger": second.event.adapter_id,
    }
    versions = read_versions(index)
    assert {number: version.tags["lorry.decision"] for number, version in versions.items()} == {
        "1": "promoted",
        "2": "refused",
    }
    assert versions["2"].tags["lorry.adapter_id"] == second.event.adapter_id
    third = enrol(trained(seed=2), registry, judged=1, index=index)
    # The newest version is the champion: there is no challenger any more.
    assert index.read_aliases(TASK) == {"champion": third.event.adapter_id}


def test_registering_again_makes_no_second_version_in_mlflow(
    trained: FindTrained, registry: Registry, index: MlflowIndex
) -> None:
    for _ in range(2):
        enrol(trained(), registry, index=index)
    assert list(read_versions(index)) == ["1"]
    assert len(index._client.search_model_versions(f"name = '{TASK}'")) == 1


def test_a_training_run_is_used_and_no_second_one_opened(
    trained: FindTrained, registry: Registry, index: MlflowIndex
) -> None:
    run_id = index.open_run(TASK, name="training", tags={})
    enrol(trained(), registry, index=index, mlflow_run_id=run_id)
    assert read_versions(index)["1"].run_id == run_id
    experiment = index.ensure_experiment(TASK)
    assert [run.info.run_id for run in index._client.search_runs([experiment])] == [run_id]


@pytest.fixture(params=["a file where a folder should be", "not a database", "a scheme that nobody serves"])
def broken_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    path = tmp_path / "broken"
    path.write_text("this is no database, and no folder either\n" * 100)
    return {
        "a file where a folder should be": f"sqlite:///{path}/mlflow.db",
        "not a database": f"sqlite:///{path}",
        "a scheme that nobody serves": "gopher://nowhere",
    }[request.param]


def test_mlflow_that_is_down_costs_a_warning_and_is_reconciled_later(
    trained: FindTrained, registry: Registry, broken_uri: str, mlflow_uri: str
) -> None:
    registration = enrol(trained(), registry, index=MlflowIndex(broken_uri))
    assert registration.event.is_promotion
    assert "MLflow does not show v1 yet" in registration.warning
    assert f"lorry reconcile {TASK}" in registration.warning
    check_store(registry, 1)
    index = MlflowIndex(mlflow_uri)
    changes = reconcile_task(index, registry, TASK)
    assert changes == [
        "v1 was missing and is recorded now",
        "the alias champion was not set, and is now MLflow's version 1",
    ]
    assert index.read_aliases(TASK) == {"champion": registration.event.adapter_id}
    assert reconcile_task(index, registry, TASK) == []


def test_a_run_that_was_opened_in_another_mlflow_is_no_obstacle(
    trained: FindTrained, registry: Registry, index: MlflowIndex
) -> None:
    registration = enrol(trained(), registry, index=index, mlflow_run_id="0" * 32)
    assert registration.warning == ""
    assert index.read_aliases(TASK) == {"champion": registration.event.adapter_id}


def test_a_run_that_was_deleted_is_no_obstacle(
    trained: FindTrained, registry: Registry, index: MlflowIndex
) -> None:
    run_id = index.open_run(TASK, name="training", tags={})
    index._client.delete_run(run_id)
    registration = enrol(trained(), registry, index=index, mlflow_run_id=run_id)
    assert registration.warning == ""
    assert read_versions(index)["1"].run_id != run_id


def test_a_new_mlflow_is_filled_from_the_ledger(
    trained: FindTrained, registry: Registry, index: MlflowIndex, empty_mlflow: Path, tmp_path: Path
) -> None:
    run_id = index.open_run(TASK, name="training", tags={})
    first = enrol(trained(seed=0), registry, index=index, mlflow_run_id=run_id)
    second = enrol(trained(seed=1), registry, judged=1, passed=False, index=index, mlflow_run_id=run_id)
    path = tmp_path / "another" / "mlflow.db"
    path.parent.mkdir()
    shutil.copyfile(empty_mlflow, path)
    another = MlflowIndex(f"sqlite:///{path}")
    changes = reconcile_task(another, registry, TASK)
    assert changes[:2] == ["v1 was missing and is recorded now", "v2 was missing and is recorded now"]
    assert another.read_aliases(TASK) == {
        "champion": first.event.adapter_id,
        "challenger": second.event.adapter_id,
    }
    assert sorted(read_versions(another)) == ["1", "2"]
    # Its runs were opened now, and can be compared like any other.
    runs = another._client.search_runs([another.find_experiment(TASK)])
    assert {run.data.params["method.name"] for run in runs} == {"lora"}
    assert {run.data.params["train.epochs"] for run in runs} == {
        str(first.manifest.recipe["train"]["epochs"])
    }


def test_what_was_edited_in_mlflow_is_set_right(
    trained: FindTrained, registry: Registry, index: MlflowIndex
) -> None:
    first = enrol(trained(seed=0), registry, index=index)
    second = enrol(trained(seed=1), registry, judged=1, passed=False, index=index)
    versions = read_versions(index)
    index._client.set_registered_model_alias(TASK, "champion", versions["2"].version)
    index._client.delete_registered_model_alias(TASK, "challenger")
    changes = reconcile_task(index, registry, TASK)
    assert len(changes) == 2
    assert index.read_aliases(TASK) == {
        "champion": first.event.adapter_id,
        "challenger": second.event.adapter_id,
    }
    index._client.delete_model_version(TASK, versions["1"].version)
    changes = reconcile_task(index, registry, TASK)
    assert changes[0] == "v1 was missing and is recorded now"
    assert index.read_aliases(TASK)["champion"] == first.event.adapter_id


def test_a_promotion_by_hand_reaches_mlflow(
    trained: FindTrained, registry: Registry, index: MlflowIndex
) -> None:
    enrol(trained(seed=0), registry, index=index)
    second = enrol(trained(seed=1), registry, judged=1, passed=False, index=index)
    registry.promote(TASK, 2, reason="by hand")
    reconcile_task(index, registry, TASK)
    assert index.read_aliases(TASK) == {"champion": second.event.adapter_id}
    registry.rollback(TASK, reason="by hand")
    reconcile_task(index, registry, TASK)
    assert index.read_aliases(TASK)["challenger"] == second.event.adapter_id


def test_an_upload_that_is_cut_short_leaves_nothing_that_looks_loadable(
    trained: FindTrained, registry: Registry, index: MlflowIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def fail(*_: Any, **__: Any) -> str:
            raise TrackingError("the connection broke", where="mlflow")

        patch.setattr(index, "record_version", fail)
        registration = enrol(trained(), registry, index=index)
    assert "the connection broke" in registration.warning
    assert index.find_version(TASK, registration.event.adapter_id) is None
    assert reconcile_task(index, registry, TASK)[0] == "v1 was missing and is recorded now"
    assert list(read_versions(index)) == ["1"]


def test_a_damaged_store_is_told_by_mlflow_and_the_registry(
    trained: FindTrained, registry: Registry, store: LocalStore, index: MlflowIndex
) -> None:
    registration = enrol(trained(), registry)
    path = store.root / adapter_key(registration.event.adapter_id) / WEIGHTS_NAME
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(Exception, match=WEIGHTS_NAME):
        reconcile_task(index, registry, TASK)
    assert index.find_version(TASK, registration.event.adapter_id) is None
    (error,) = [error for _, error in registry.verify_task(TASK) if error]
    assert WEIGHTS_NAME in str(error)


def test_a_registered_model_of_somebody_elses_costs_a_warning_and_is_not_touched(
    trained: FindTrained, registry: Registry, index: MlflowIndex, tmp_path: Path
) -> None:
    index._client.create_registered_model(TASK, {"team": "theirs"})
    index._client.create_model_version(TASK, tmp_path.as_uri())
    index._client.set_registered_model_alias(TASK, "champion", "1")
    registration = enrol(trained(), registry, passed=False, index=index)
    assert f"a registered model named '{TASK}' exists" in registration.warning
    assert registry.list_versions(TASK)[0].adapter_id == registration.event.adapter_id
    model = index._client.get_registered_model(TASK)
    assert (model.tags, model.aliases) == ({"team": "theirs"}, {"champion": 1})
    with pytest.raises(TrackingError, match="rename that model"):
        reconcile_task(index, registry, TASK)


def test_files_that_were_exchanged_in_mlflow_are_reported_and_sent_again(
    trained: FindTrained, registry: Registry, index: MlflowIndex
) -> None:
    first = enrol(trained(seed=0), registry, index=index)
    second = enrol(trained(seed=1), registry, judged=1, index=index)
    folders = {
        number: Path(version.source.removeprefix("file://"))
        for number, version in read_versions(index).items()
    }
    for name in (*ADAPTER_FILES, MANIFEST_NAME):
        shutil.copyfile(folders["1"] / name, folders["2"] / name)
    # All of them, or the tags: neither moves the champion away from the ledger's.
    index._client.set_model_version_tag(TASK, "1", "lorry.adapter_id", second.event.adapter_id)
    changes = reconcile_task(index, registry, TASK)
    assert "the tag lorry.adapter_id of MLflow's version 1" in changes[0]
    assert "MLflow's version 2 was recorded as adapter" in changes[1]
    assert changes[2:] == [
        "v2 was missing and is recorded now",
        "the alias champion was MLflow's version 2, and is now MLflow's version 3",
    ]
    assert index.find_version(TASK, first.event.adapter_id) == "1"
    assert index.find_version(TASK, second.event.adapter_id) == "3"
    assert reconcile_task(index, registry, TASK) == []


def test_a_champion_that_was_chosen_in_mlflow_is_adopted_on_request(
    trained: FindTrained, registry: Registry, index: MlflowIndex
) -> None:
    enrol(trained(seed=0), registry, index=index)
    enrol(trained(seed=1), registry, judged=1, passed=False, index=index)
    index._client.set_registered_model_alias(TASK, "champion", "2")
    changes = reconcile_task(index, registry, TASK, adopt_alias=True)
    assert changes[0].startswith("v2 is now the ledger's champion, as the alias champion was moved")
    assert registry.resolve(TASK).version == 2
    assert index.read_aliases(TASK) == {"champion": registry.resolve(TASK).adapter_id}


# Killed between two writes

# Registers a candidate, and dies before the write that its last argument counts to.
_REGISTER = """
import os, sys
from pathlib import Path
from lorry_components.steps.evaluate.evaluation_report import EvaluationReport
from lorry_components.data.prepared import load_card
from lorry_components.steps.gate.step import Decision
from lorry_components.steps.register.step import register
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import TaskSpec

spec, candidate, evaluation, store, cache, uri, fatal = sys.argv[1:]
writes = 0

def count(owner, name):
    original = getattr(owner, name)
    def wrapped(*arguments, **keywords):
        global writes
        if writes == int(fatal):
            print("died before", name, flush=True)
            os._exit(9)
        writes += 1
        return original(*arguments, **keywords)
    setattr(owner, name, wrapped)

for name in ("upload", "create", "compare_and_swap"):
    count(LocalStore, name)
index = None
if uri:
    index = MlflowIndex(uri)
    for name in ("create_model", "upload_model", "record_version", "set_aliases"):
        count(index, name)
registry = Registry(LocalStore(Path(store)), Path(cache))
registration = register(
    resolve_task(TaskSpec.model_validate_json(spec)), Path(candidate),
    EvaluationReport.load(Path(evaluation)),
    Decision(passed=True, reasons=("good",), judged_champion=None),
    registry=registry, index=index, details={},
)
assert not registration.warning, registration.warning
"""
# Three files, the manifest, the row fingerprints, the adapter's claim, the registry's id,
# the ledger's head, its event; then MLflow's model, files, version, aliases.
_STORE_WRITES = 9
_ALL_WRITES = 13


@pytest.fixture
def start_registration(
    start_child: Callable[..., Any], trained: FindTrained, tmp_path: Path, store: LocalStore
) -> Callable[..., Any]:
    found = trained()
    found.report.save(tmp_path)

    def start(fatal: int, uri: str = "") -> Any:
        places = (found.candidate, tmp_path, store.root, tmp_path / "child-cache", uri)
        return start_child(_REGISTER, found.spec.model_dump_json(), *places, fatal)

    return start


def check_complete_or_absent(store: LocalStore, registry: Registry) -> None:
    """Check that each adapter verifies or has no manifest, and that the ledger names whole ones only."""
    adapters = store.root / "adapters"
    for folder in adapters.iterdir() if adapters.is_dir() else ():
        if (folder / MANIFEST_NAME).exists():
            verify_adapter(folder, expected_id=f"sha256:{folder.name}")
    for task in registry.ledger.list_tasks():
        assert [error for _, error in registry.verify_task(task) if error] == []


@pytest.mark.parametrize("fatal", range(_STORE_WRITES))
def test_a_registration_that_is_killed_leaves_an_adapter_whole_or_absent(
    start_registration: Callable[..., Any], store: LocalStore, registry: Registry, fatal: int
) -> None:
    killed = start_registration(fatal)
    assert killed.wait() == 9, killed.log.read_text()
    check_complete_or_absent(store, registry)
    # It is known to the task from the ledger's head on, and not before.
    is_known = fatal >= _STORE_WRITES - 1
    assert registry.ledger.list_tasks() == ([TASK] if is_known else [])
    again = start_registration(-1)
    assert again.wait() == 0, again.log.read_text()
    check_complete_or_absent(store, registry)
    versions = list_versions(registry.ledger.read_history(TASK))
    assert [version.number for version in versions] == [1]
    assert registry.resolve(TASK).version == 1
    assert len(list((store.root / "adapters").iterdir())) == 1


@pytest.mark.parametrize("fatal", range(_STORE_WRITES, _ALL_WRITES))
def test_a_registration_that_is_killed_on_its_way_to_mlflow_ends_with_one_version(
    start_registration: Callable[..., Any], registry: Registry, mlflow_uri: str, fatal: int
) -> None:
    killed = start_registration(fatal, mlflow_uri)
    assert killed.wait() == 9, killed.log.read_text()
    champion = registry.resolve(TASK)
    assert champion.version == 1
    again = start_registration(-1, mlflow_uri)
    assert again.wait() == 0, again.log.read_text()
    check_store(registry, 1)
    index = MlflowIndex(mlflow_uri)
    assert list(read_versions(index)) == ["1"]
    assert index.read_aliases(TASK) == {"champion": champion.adapter_id}


def test_all_writes_are_counted(
    start_registration: Callable[..., Any], mlflow_uri: str, tmp_path: Path
) -> None:
    # Or a kill test would miss those that were added.
    last = start_registration(_ALL_WRITES - 1, mlflow_uri)
    assert last.wait() == 9, last.log.read_text()
    assert "died before set_aliases" in last.log.read_text()
    # The registry's id stays: MLflow would take another one for another registry.
    for name in ("adapters", "tasks"):
        shutil.rmtree(tmp_path / "store" / name)
    whole = start_registration(_ALL_WRITES, mlflow_uri)
    assert whole.wait() == 0, whole.log.read_text()
    assert json.loads((tmp_path / "store" / "tasks" / TASK / "head.json").read_text())["versions"] == 1
