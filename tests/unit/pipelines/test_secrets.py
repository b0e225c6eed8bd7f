"""Nothing that is written down of a run or a pipeline holds a password."""

from pathlib import Path
from typing import Any

import click.testing
import pytest

from lorry_components.steps.runtime.step_context import choose_tracking_uri
from lorry_pipelines.cli import lorry
from lorry_pipelines.compilation import compile_pipeline
from lorry_pipelines.local import launch
from lorry_pipelines.local.launch import RunFolder, run_pipeline
from lorry_registry.errors import TrackingError, UsageError
from lorry_registry.settings import Settings
from lorry_registry.tasks.task_spec import TaskSpec

PASSWORD = "hunter2"  # noqa: S105 - that is what is looked for
TRACKING = f"postgresql://lorry:{PASSWORD}@db/mlflow"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load({"MLFLOW_TRACKING_URI": TRACKING, "LORRY_HOME": str(tmp_path / "home")}, tmp_path)


def make_spec(source: str) -> TaskSpec:
    return TaskSpec.model_validate(
        {
            "name": "reviews",
            "kind": "text-classification",
            "base": {"model": "./base"},
            "data": {"source": source},
            "method": {"name": "lora"},
        }
    )


@pytest.mark.parametrize("runner", ["subprocess", "docker"])
def test_a_run_hands_secrets_over_by_its_environment_alone(
    runner: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, str]] = []

    def start(*_: Any, environment: dict[str, str], **__: Any) -> None:
        started.append(environment)
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "start_watched", start)
    monkeypatch.setattr(launch, "remove_containers", lambda _run: None)
    folder = RunFolder.create(settings.runs)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(
            [make_spec("/rows.jsonl")],
            folder,
            settings=settings,
            runner=runner,
            force=False,
            environment={"AWS_SECRET_ACCESS_KEY": PASSWORD},
            watch=lambda: None,
        )
    written = [path for path in folder.path.rglob("*") if path.is_file()]
    assert {path.name for path in written} >= {"run.json", "pipeline.yaml"}
    for path in written:
        assert PASSWORD not in path.read_text("utf-8"), path
    (environment,) = started
    assert environment["MLFLOW_TRACKING_URI"] == TRACKING
    assert environment["AWS_SECRET_ACCESS_KEY"] == PASSWORD


@pytest.mark.parametrize(
    "tracking", [TRACKING, f"https://{PASSWORD}@mlflow", f"http://mlflow:5000/?access_token={PASSWORD}"]
)
def test_a_compiled_pipeline_holds_no_password_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tracking: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    result = click.testing.CliRunner().invoke(lorry, ["compile", "--target", "local", "-o", "lorry.yaml"])
    assert result.exit_code == 0, result.output
    assert PASSWORD not in (tmp_path / "lorry.yaml").read_text("utf-8")
    assert "from a Kubernetes secret" in " ".join(result.output.split())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    result = click.testing.CliRunner().invoke(lorry, ["compile", "--target", "local", "-o", "lorry.yaml"])
    assert "secret" not in result.output
    assert "http://mlflow:5000" in (tmp_path / "lorry.yaml").read_text("utf-8")


def test_passwords_in_other_addresses_are_refused(settings: Settings, tmp_path: Path) -> None:
    stored = settings.model_copy(update={"store": f"s3://key:{PASSWORD}@bucket"})
    with pytest.raises(UsageError, match="LORRY_STORE") as caught:
        compile_pipeline([], tmp_path / "lorry.yaml", settings=stored)
    assert "Kubernetes secret" in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert not (tmp_path / "lorry.yaml").exists()


def test_steps_take_the_address_from_their_environment() -> None:
    environment = {"MLFLOW_TRACKING_URI": TRACKING}
    assert choose_tracking_uri("http://mlflow:5000", environment) == "http://mlflow:5000"
    assert choose_tracking_uri("", environment) == TRACKING
    with pytest.raises(TrackingError, match="Kubernetes secret"):
        choose_tracking_uri("", {})
