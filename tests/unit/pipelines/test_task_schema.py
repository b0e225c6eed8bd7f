"""The JSON Schema of the task file, against task files that are right and wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from lorry_components.tasks.json_schema import EDITOR_LINE, SCHEMA_NAME, describe_task_file
from lorry_pipelines.cli import lorry

jsonschema = pytest.importorskip("jsonschema")
_TASKS = sorted((Path(__file__).parents[3] / "pipelines/tasks").glob("*.yaml"))


def list_errors(document: Any, schema: Any) -> list[str]:
    jsonschema.Draft202012Validator.check_schema(schema)
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]


@pytest.mark.parametrize("path", _TASKS, ids=lambda path: str(path.stem))
def test_the_tasks_of_this_repository_are_valid(path: Path) -> None:
    assert list_errors(yaml.safe_load(path.read_text("utf-8")), describe_task_file()) == []


def test_a_class_may_be_a_number() -> None:
    document = yaml.safe_load(_TASKS[0].read_text("utf-8")) | {"evaluate": {"positive": 1}}
    assert list_errors(document, describe_task_file()) == []


def test_validate_prints_it_without_a_file() -> None:
    result = CliRunner().invoke(lorry, ["validate", "--schema"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == describe_task_file()


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        (None, "kind", "text-clasification"),
        (None, "nmae", "reviews"),
        ("train", "epochs", -1),
        ("train", "epoch", 3),
        ("method", "name", "lorra"),
        ("method", "rank", 8),
        ("method", "r", "many"),
    ],
)
def test_a_bad_task_is_not_valid(section: str | None, field: str, value: object) -> None:
    document = yaml.safe_load(_TASKS[0].read_text("utf-8"))
    target = document if section is None else document.setdefault(section, {})
    target[field] = value
    assert len(list_errors(document, describe_task_file())) == 1


def test_every_field_and_option_is_described() -> None:
    schema = describe_task_file()
    methods = {
        each["if"]["properties"]["name"]["const"]: each["then"]
        for each in schema["$defs"]["MethodSpec"]["allOf"]
    }
    undescribed = [
        f"{title}: {name}"
        for title, model in {"the task": schema, **schema["$defs"], **methods}.items()
        for name, field in model.get("properties", {}).items()
        if field is not True and not field.get("description")
    ]
    assert undescribed == []
    # What has no value is left out of a file; Python's word for it is none of YAML's.
    assert "None" not in json.dumps(schema)


@pytest.mark.parametrize("arguments", [[], ["--repository", "tasks-of-mine"]], ids=["file", "repository"])
def test_init_writes_it_where_the_task_file_names_it(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_rows: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_bytes(tiny_rows.read_bytes())
    result = CliRunner().invoke(lorry, ["init", "rows.jsonl", *arguments])
    assert result.exit_code == 0, result.output
    (path,) = tmp_path.rglob("rows.yaml")
    content = path.read_text("utf-8")
    assert content.splitlines()[0] == EDITOR_LINE
    schema = json.loads((path.parent / SCHEMA_NAME).read_text("utf-8"))
    assert list_errors(yaml.safe_load(content), schema) == []


def test_init_leaves_a_schema_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_rows: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_bytes(tiny_rows.read_bytes())
    Path(SCHEMA_NAME).write_text("{}", "utf-8")
    assert CliRunner().invoke(lorry, ["init", "rows.jsonl"]).exit_code == 0
    assert Path(SCHEMA_NAME).read_text("utf-8") == "{}"
