"""Experiments, runs and logged models in a real MLflow in a SQLite database."""

import getpass
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import TrackingError
from lorry_registry.manifest import MANIFEST_NAME
from lorry_registry.mlflow.dataset_inputs import RunDataset
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.mlflow.page_addresses import TrainingsPage
from lorry_registry.mlflow.views import build_view

from fixtures.adapters import show_version

Make = Callable[..., Any]


def test_an_experiment_is_made_once_and_keeps_its_artifacts_below_the_root(
    index: MlflowIndex, client: Any, tmp_path: Path
) -> None:
    first = index.ensure_experiment("reviews")
    assert index.ensure_experiment("reviews") == first
    experiment = client.get_experiment(first)
    assert experiment.name == "reviews"
    assert experiment.tags["lorry.task"] == "reviews"
    # What MLflow's pages look at to show trainings.
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
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
            "train": {"seed": 3, "early_stopping": None, "packing": False},
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
    assert run.data.tags["mlflow.user"] == getpass.getuser()
    assert run.data.tags["lorry.task"] == "reviews"
    assert run.data.tags["lorry.run"] == "7"
    assert run.data.tags["note"] == "y" * 8000
    assert run.data.params == {
        "train.seed": "3",
        "train.packing": "False",
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
    with pytest.raises(TrackingError, match=r"cannot use the run 0123456789abcdef.*\n.*answered and refused"):
        index.open_run("reviews", name="x", tags={}, run_id="0123456789abcdef")


def test_time_between_two_attempts_does_not_count(
    index: MlflowIndex, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [time.time()]
    monkeypatch.setattr("lorry_registry.mlflow.training_runs.time.time", lambda: clock[0])
    run_id = index.open_run("reviews", name="x", tags={})
    started = client.get_run(run_id).info.start_time
    clock[0] = started / 1000 + 10
    # It is killed after this.
    index.log_metrics(run_id, {"train/loss": 1.0}, step=1)
    clock[0] += 3600
    index.open_run("reviews", name="x", tags={}, run_id=run_id)
    clock[0] += 5
    index.close_run(run_id, failed=True)
    assert client.get_run(run_id).info.end_time - started == pytest.approx(15_000, abs=2)
    clock[0] += 7200
    index.open_run("reviews", name="x", tags={}, run_id=run_id)
    clock[0] += 2
    index.close_run(run_id, failed=False)
    assert client.get_run(run_id).info.end_time - started == pytest.approx(17_000, abs=2)


def test_a_logged_model_has_its_files_its_run_and_its_versions(
    index: MlflowIndex, client: Any, make_adapter: Make, tmp_path: Path
) -> None:
    adapter = make_adapter()
    run_id = index.open_run("reviews", name="x", tags={})
    model_id = index.create_model("reviews", run_id=run_id, model_type="text-regression", flavor="lorry")
    document = index.build_model_document(model_id, run_id)
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "sub" / "weights").write_bytes(b"w")
    document.add_flavor("lorry", adapter_id=adapter.adapter_id)
    document.save(str(tmp_path / "model" / "MLmodel"))
    shutil.copyfile(adapter.path / MANIFEST_NAME, tmp_path / "model" / MANIFEST_NAME)
    source = index.upload_model(model_id, tmp_path / "model")
    assert source == f"models:/{model_id}"
    index.log_metrics(run_id, {"pearson": 0.9}, model_id=model_id)
    given: dict[str, Any] = {"source": source, "model_id": model_id, "reasons": ("good enough",)}
    number = show_version(index, adapter, 3, promoted=False, **given)
    model = client.get_logged_model(model_id)
    assert model.status == "READY"
    assert model.tags["lorry.flavor"] == "lorry"
    assert [metric.value for metric in model.metrics] == [0.9]
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "reviews", "version": number}]
    assert {"MLmodel", "sub", MANIFEST_NAME} == {
        entry.path for entry in client.list_logged_model_artifacts(model_id)
    }
    version = client.get_model_version("reviews", number)
    assert (version.run_id, version.source) == (run_id, model.artifact_location)
    assert [output.model_id for output in client.get_run(run_id).outputs.model_outputs] == [model_id]
    # Recorded again, when it has passed after all: the same version, with the new verdict.
    assert show_version(index, adapter, 3, **given) == number
    assert client.get_model_version("reviews", number).tags["lorry.decision"] == "promoted"


def test_the_run_of_a_version_gets_its_name_and_tags_and_keeps_what_a_person_wrote(
    index: MlflowIndex, client: Any
) -> None:
    tags = {
        "lorry.version": "2",
        "lorry.decision": "refused",
        "mlflow.note.content": "Refused: it is too weak",
    }
    names = {"name": "reviews v2 lora r=8", "former": "reviews lora r=8"}
    ours = index.open_run("reviews", name="reviews lora r=8", tags={})
    assert index.update_run(ours, "reviews", tags=tags, **names)
    assert not index.update_run(ours, "reviews", tags=tags, **names)
    run = client.get_run(ours)
    assert run.info.run_name == "reviews v2 lora r=8"
    assert run.data.tags["lorry.decision"] == "refused"
    later = tags | {"lorry.decision": "promoted", "mlflow.note.content": "Champion: it was promoted"}
    assert index.update_run(ours, "reviews", tags=later, **names)
    assert client.get_run(ours).data.tags["mlflow.note.content"] == "Champion: it was promoted"
    # A person's name and notes stay.
    theirs = index.open_run("reviews", name="my favourite", tags={"mlflow.note.content": "look at row 7"})
    assert index.update_run(theirs, "reviews", tags=tags, **names)
    run = client.get_run(theirs)
    assert (run.info.run_name, run.data.tags["mlflow.note.content"]) == ("my favourite", "look at row 7")
    # The run of another version, of another task, or one that is gone, is left alone.
    assert not index.update_run(ours, "reviews", tags=tags | {"lorry.version": "3"}, **names)
    assert not index.update_run(ours, "films", tags=tags, **names)
    client.delete_run(theirs)
    assert not index.update_run(theirs, "reviews", tags=later, **names)
    assert not index.update_run("0" * 32, "reviews", tags=tags, **names)


def test_data_sets_are_shown_without_secrets(index: MlflowIndex, client: Any) -> None:
    run_id = index.open_run("reviews", name="x", tags={})
    sources = {
        "train": "s3://key:hunter22@bucket/rows.jsonl",
        "validation": "hub:owner/name",
        "test": "rows.jsonl",
    }
    datasets = [
        RunDataset("reviews", part, source, f"sha256:{part:0<64}", 7, {"text": "string"}, {"words": 3})
        for part, source in sources.items()
    ]
    index.log_datasets(run_id, datasets)
    index.log_datasets(run_id, datasets)
    found = {each.tags[0].value: each.dataset for each in client.get_run(run_id).inputs.dataset_inputs}
    assert {part: (each.source_type, json.loads(each.source)) for part, each in found.items()} == {
        "train": ("s3", {"uri": "s3://***@bucket/rows.jsonl"}),
        "validation": ("hugging_face", {"path": "owner/name"}),
        "test": ("local", {"uri": "rows.jsonl"}),
    }
    profile = {"num_rows": 7, "sha256": f"sha256:{'test':0<64}", "words": 3}
    assert json.loads(found["test"].profile) == profile
    assert json.loads(found["test"].schema) == {"mlflow_colspec": [{"name": "text", "type": "string"}]}


def test_studies_are_kept_apart(index: MlflowIndex, client: Any, tmp_path: Path) -> None:
    study = client.get_run(index.open_run("reviews", name="ranks", tags={}, of_studies=True))
    training = client.get_run(index.open_run("reviews", name="x", tags={}))
    assert study.info.experiment_id != training.info.experiment_id
    experiment = client.get_experiment(study.info.experiment_id)
    assert experiment.name == "reviews (studies)"
    assert experiment.artifact_location == (tmp_path / "artifacts" / "_studies" / "reviews").as_uri()
    assert "the task reviews" in experiment.tags["mlflow.note.content"]


def test_an_experiment_is_described_once(index: MlflowIndex, client: Any) -> None:
    assert not index.describe_experiment("reviews", "early")
    experiment = index.ensure_experiment("reviews")
    assert index.find_experiment("reviews") == experiment
    assert index.find_experiment("films") is None
    assert index.describe_experiment("reviews", "first")
    # Whoever writes it in MLflow's pages keeps it.
    assert not index.describe_experiment("reviews", "second")
    assert client.get_experiment(experiment).tags["mlflow.note.content"] == "first"


def test_an_experiment_has_a_view_of_its_results(index: MlflowIndex, client: Any) -> None:
    assert not index.show_view("reviews", build_view("pearson"))
    assert index.find_trainings("reviews") is None
    experiment = index.ensure_experiment("reviews")
    assert index.find_trainings("reviews") == TrainingsPage(experiment)
    assert index.show_view("reviews", build_view("pearson"))
    assert not index.show_view("reviews", build_view("pearson"))
    assert index.find_trainings("reviews") == TrainingsPage(experiment, view="lorry")
    view = json.loads(client.get_experiment(experiment).tags["mlflow.sharedViewState.lorry"])
    state = json.loads(view["state"])
    columns = state["selectedColumns"]
    assert columns[:5] == [
        "tags.`lorry.status`",
        "metrics.`test.pearson`",
        "tags.`lorry.interval`",
        "metrics.`baseline`",
        "metrics.`probe.gain`",
    ]
    assert {"params.`method.options`", "params.`train.learning_rate`"} <= {*columns}
    # Without its own columns first, MLflow would move them behind these.
    assert state["columnOrder"][2:] == columns
    # Beside MLflow's assistant, that many pixels are left of 1440 for the results.
    assert sum(state["columnWidths"][name] for name in state["columnOrder"][:7]) < 755
    # The task's studies have one of their own.
    assert not index.show_view("reviews", build_view("pearson", of_studies=True), of_studies=True)
    studies = index.ensure_experiment("reviews", of_studies=True)
    assert index.show_view("reviews", build_view("pearson", of_studies=True), of_studies=True)
    assert "lorry.recommendation" in client.get_experiment(studies).tags["mlflow.sharedViewState.lorry"]
    # Another primary metric is shown from now on.
    assert index.show_view("reviews", build_view("spearman"))


@pytest.mark.parametrize(
    "view", ["not JSON", "[]", '{"name": "Mine", "createdAt": 1, "updatedAt": 1760000000}']
)
def test_a_view_that_a_person_saved_is_kept(index: MlflowIndex, client: Any, view: str) -> None:
    experiment = index.ensure_experiment("reviews")
    client.set_experiment_tag(experiment, "mlflow.sharedViewState.lorry", view)
    assert not index.show_view("reviews", build_view("pearson"))
    assert client.get_experiment(experiment).tags["mlflow.sharedViewState.lorry"] == view


def test_a_new_database_has_no_empty_experiment_in_the_way(index: MlflowIndex, client: Any) -> None:
    index.ensure_experiment("reviews")
    assert [experiment.name for experiment in client.search_experiments()] == ["reviews"]
