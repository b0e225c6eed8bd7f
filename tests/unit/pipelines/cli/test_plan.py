"""``lorry plan``, and ``lorry run`` of what does not fit."""

import importlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import pytest
import yaml

from lorry_components.reference.entries import COUNTS
from lorry_components.reference.published_rows import PublishedRow
from lorry_pipelines.cli import lorry
from lorry_registry.errors import BaseModelError, StoreError
from lorry_registry.task_spec import TaskSpec

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


def test_a_published_row_that_fails_does_not_hide_the_others(
    invoke: Callable[..., click.testing.Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "lorry_components.reference.published_rows"
    first, second = COUNTS[:2]
    for table, rows in (("COUNTS", (first, second)), ("MEMORY", ()), ("IMAGE_MEMORY", ())):
        monkeypatch.setattr(f"{module}.{table}", rows)
    real = importlib.import_module(module)._count_row

    def count(name: str, entry: Any, totals: Any) -> PublishedRow:
        if entry is first:
            raise AttributeError("no such field")
        row: PublishedRow = real(name, entry, totals)
        return row

    monkeypatch.setattr(f"{module}._count_row", count)
    shown = invoke("plan", "--published")
    assert shown.exit_code == 0
    assert "roberta-base full: AttributeError: no such field" in shown.output
    assert "roberta-base bitfit" in shown.output
    failed, planned = json.loads(invoke("plan", "--published", "--json").stdout)
    assert (failed["is_planned"], planned["is_planned"]) == (False, True)
    assert failed["reason"] == "not planned: AttributeError: no such field"


@pytest.mark.parametrize(
    "arguments", [(), ("--published", "task.yaml"), ("--published", "--set", "train.seed=1")]
)
def test_arguments_that_make_no_sense(
    arguments: tuple[str, ...], invoke: Callable[..., click.testing.Result]
) -> None:
    assert invoke("plan", *arguments).exit_code == 2


def test_published_figures(
    invoke: Callable[..., click.testing.Result],
    published_rows: dict[str, PublishedRow],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = list(published_rows.values())
    monkeypatch.setattr("lorry_components.reference.published_rows.list_published_rows", lambda: rows)
    shown = invoke("plan", "--published").output
    assert "mt0-large lora r=8" in shown
    assert "2,359,296" in shown
    assert "out of memory" in shown
    images = sum(name.startswith("stable-diffusion") for name in published_rows)
    assert f"{23 + images} of {37 + images} agree with the published figures" in shown
    listed = json.loads(invoke("plan", "--published", "--json").output)
    assert [row["name"] for row in listed] == list(published_rows)
    # Its former name still works, and --help does not show it.
    assert json.loads(invoke("plan", "--lecture", "--json").output) == listed
    assert "--lecture" not in invoke("plan", "--help").output


def test_published_figures_without_what_draws_images(
    invoke: Callable[..., click.testing.Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "diffusers" else real(name, *rest)
    )
    for table in ("COUNTS", "MEMORY"):
        monkeypatch.setattr(f"lorry_components.reference.published_rows.{table}", ())
    result = invoke("plan", "--published", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])
    assert "the rows of Stable Diffusion are left out, because diffusers is not installed" in result.stderr
    assert "pip install 'lorry[train,images]'" in result.stderr


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
    monkeypatch.setattr("lorry_pipelines.retraining.planning.find_step_times", lambda *_: ("v3", times))
    assert "time          1.0 min, as v3 took on the same kind of machine" in invoke(
        "plan", task_file()
    ).output.replace("\n", " ")
    (plan,) = json.loads(invoke("plan", task_file(), "--json").output)
    assert (plan["expected_seconds"], plan["known_from"]) == (60.0, "v3")
