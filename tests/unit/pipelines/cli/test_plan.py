"""``lorry plan``, and ``lorry run`` of what does not fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import pytest
import yaml

from lorry_pipelines.cli import lorry
from lorry_registry.errors import BaseModelError, StoreError
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
GIB = 2**30


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., click.testing.Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORRY_HOME", str(tmp_path / "home"))

    def call(*arguments: object) -> click.testing.Result:
        return click.testing.CliRunner().invoke(lorry, [str(argument) for argument in arguments])

    return call


@pytest.fixture
def task_file(make_plan_spec: MakeSpec, tmp_path: Path) -> Callable[..., Path]:
    def write(**sections: Any) -> Path:
        document = make_plan_spec(**sections).model_dump(mode="json", exclude_defaults=True)
        method = document.pop("method")
        document["method"] = {"name": method["name"], **method.get("options", {})}
        path = tmp_path / "task.yaml"
        path.write_text(yaml.safe_dump(document), "utf-8")
        return path

    return write


def test_what_to_expect_of_soft_tokens_is_printed(
    invoke: Callable[..., click.testing.Result], task_file: Callable[..., Path]
) -> None:
    result = invoke("plan", task_file(method={"name": "prompt-tuning"}))
    assert "Notes" in result.output
    assert "prompt-tuning is not expected to learn much" in result.output


def test_a_plan_is_printed(
    invoke: Callable[..., click.testing.Result], task_file: Callable[..., Path]
) -> None:
    result = invoke("plan", task_file())
    assert result.exit_code == 0, result.output
    for text in (
        "tiny: lora",
        "trained",
        "smallest GPU  T4 16 GB",
        "activations",
        "Training, GPU",
        "99 in the head",
    ):
        assert text in result.output
    assert "What would take less" not in result.output
    assert max(map(len, result.output.splitlines()[7:])) <= 80


def test_a_plan_that_does_not_fit_says_what_would(
    invoke: Callable[..., click.testing.Result], task_file: Callable[..., Path]
) -> None:
    result = invoke("plan", task_file(resources={"memory": "100Mi"}), "--set", "train.batch_size=4096")
    assert result.exit_code == 0, result.output
    assert "too little, see below" in result.output
    assert "resources.memory: 100Mi is less than lora takes" in result.output
    assert "train.gradient_checkpointing: true" in result.output


def test_a_plan_as_json(invoke: Callable[..., click.testing.Result], task_file: Callable[..., Path]) -> None:
    result = invoke("plan", task_file(resources={"memory": "100Mi"}), "--json")
    (plan,) = json.loads(result.output)
    assert plan["task"] == "tiny"
    assert plan["parameters"]["adapter"] == 2 * 2 * 4 * 64
    assert [fault["where"] for fault in plan["faults"]] == ["resources.memory"]


def test_a_task_that_cannot_be_planned_does_not_hide_the_others(
    invoke: Callable[..., click.testing.Result], task_file: Callable[..., Path], tmp_path: Path
) -> None:
    whole = task_file()
    other = yaml.safe_load(whole.read_text("utf-8")) | {
        "name": "gone",
        "base": {"model": str(tmp_path / "no")},
    }
    (tmp_path / "gone.yaml").write_text(yaml.safe_dump(other), "utf-8")
    result = invoke("plan", tmp_path / "gone.yaml", whole)
    assert result.exit_code == BaseModelError.exit_code
    assert "tiny: lora" in result.stdout
    assert "error: gone cannot be planned:" in result.stderr
    listed = invoke("plan", tmp_path / "gone.yaml", whole, "--json")
    assert [plan["task"] for plan in json.loads(listed.stdout)] == ["tiny"]
    assert listed.exit_code == BaseModelError.exit_code


def test_a_plan_needs_a_task(invoke: Callable[..., click.testing.Result]) -> None:
    assert invoke("plan").exit_code == 2


def test_a_run_that_does_not_fit_starts_nothing(
    invoke: Callable[..., click.testing.Result], task_file: Callable[..., Path], tmp_path: Path
) -> None:
    result = invoke("run", task_file(resources={"memory": "100Mi"}))
    assert result.exit_code == 3, result.output
    assert "tiny: resources.memory: 100Mi is less than lora takes" in result.output
    assert "--force" in result.output
    assert not (tmp_path / "home" / "runs").exists()


def test_a_run_is_forced(
    invoke: Callable[..., click.testing.Result],
    task_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(_settings: object, _: object) -> None:
        raise StoreError("far enough")

    monkeypatch.setattr("lorry_pipelines.local.launch.check_places", stop)
    result = invoke("run", task_file(resources={"memory": "100Mi"}), "--force")
    assert result.exit_code == StoreError.exit_code
    assert "far enough" in result.output


def test_a_time_that_is_known_is_printed(
    invoke: Callable[..., click.testing.Result],
    task_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "same kind of machine" not in invoke("plan", task_file()).output
    assert json.loads(invoke("plan", task_file(), "--json").output)[0]["expected_seconds"] is None
    times = {"prepare_data": 4.0, "finetune": 56.0}
    monkeypatch.setattr("lorry_pipelines.retraining.planning.find_step_durations", lambda *_: ("v3", times))
    assert "time          1.0 min, as v3 took on the same kind of machine" in invoke(
        "plan", task_file()
    ).output.replace("\n", " ")
    (plan,) = json.loads(invoke("plan", task_file(), "--json").output)
    assert (plan["expected_seconds"], plan["known_from"]) == (60.0, "v3")
