"""Experiments, runs and logged models in a real MLflow in a SQLite database."""

import getpass
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import TrackingError
from lorry_registry.manifest import MANIFEST_NAME
from lorry_registry.mlflow_index import MlflowIndex

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


def test_a_failed_run_is_marked(index: MlflowIndex, client: Any) -> None:
    run_id = index.open_run("reviews", name="x", tags={})
    index.close_run(run_id, failed=True)
    assert client.get_run(run_id).info.status == "FAILED"


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
    assert {"MLmodel", "sub", MANIFEST_NAME} == {
        entry.path for entry in client.list_logged_model_artifacts(model_id)
    }
    version = client.get_model_version("reviews", number)
    assert (version.run_id, version.source) == (run_id, model.artifact_location)
    assert [output.model_id for output in client.get_run(run_id).outputs.model_outputs] == [model_id]
    # Recorded again, when it has passed after all: the same version, with the new verdict.
    assert index.record_version("reviews", promoted=True, **arguments) == number
    assert client.get_model_version("reviews", number).tags["lorry.decision"] == "promoted"
