"""``lorry validate``: task files and their data, without running them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from lorry_components.tasks.definition import define_task
from lorry_pipelines.cli import lorry

Validate = Callable[..., Result]

_TASK = {
    "name": "reviews",
    "kind": "text-classification",
    "base": {"model": "./base"},
    "data": {"source": "rows.csv", "columns": {"text": "review", "label": "stars"}},
    "method": {"name": "lora"},
}


@pytest.fixture
def validate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Validate:
    """Return a function that validates ``reviews.yaml``, in a folder with 300 rows of two classes."""
    monkeypatch.chdir(tmp_path)
    rows = [
        f"review number {number} was {'good' if number % 2 else 'bad'},{number % 2}" for number in range(300)
    ]
    Path("rows.csv").write_text("\n".join(["review,stars", *rows]) + "\n", "utf-8")
    Path("reviews.yaml").write_text(yaml.safe_dump(_TASK), "utf-8")

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(lorry, ["validate", "reviews.yaml", *arguments])
        assert result.exit_code == code, result.output
        return result

    return run


def test_data_are_read_and_what_a_run_would_warn_of_is_told(validate: Validate) -> None:
    lines = validate("--set", "data.limit.test=5").stdout.splitlines()
    assert (
        lines[0] == f"reviews.yaml: reviews, text-classification with lora on {Path('base').resolve()}: valid"
    )
    assert lines[1] == "  base: not on this machine, so the method was not checked against it"
    assert lines[2].startswith("  data: ")
    assert lines[2].endswith(" test rows in 2 classes")
    assert lines[3] == "  warning: test has only 5 rows: scores on it are rough"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.source=rovs.csv", "there is no such file or folder; did you mean 'rows.csv'?"),
        ("data.columns.text=reviw", "has no column 'reviw' (data.columns.text)"),
        ("data.source=book.xlsx", "its name has no known ending"),
    ],
)
def test_data_that_cannot_be_used_are_told_in_time(validate: Validate, setting: str, message: str) -> None:
    Path("book.xlsx").touch()
    result = validate("--set", setting, code=4)
    assert "valid" not in result.stdout
    assert message in result.stderr
    assert ": valid\n  data: not read\n" in validate("--set", setting, "--no-data").stdout.replace(
        "  base: not on this machine, so the method was not checked against it\n", ""
    )


@pytest.mark.parametrize(
    ("minimum", "remedy"), [("85", "write 0.85"), ("3", "write 0.03"), ("200", "write a share")]
)
def test_a_minimum_that_no_score_can_reach_is_refused(validate: Validate, minimum: str, remedy: str) -> None:
    message = validate("--set", f"gate.minimum={minimum}", code=3).stderr
    assert f"gate.minimum: accuracy is never above 1, so {minimum} is never reached; {remedy}" in message
    validate("--set", "gate.minimum=1")
    # Nothing is promoted by itself.
    validate("--set", "gate.minimum=2")


def test_a_metric_without_an_upper_bound_may_be_asked_for_more(validate: Validate) -> None:
    generation = ("--set", "kind=text-to-text", "--set", "evaluate.primary=nist", "--no-data")
    validate(*generation, "--set", "gate.minimum=8.5")


def test_a_wrong_field_of_a_section_gets_a_suggestion(validate: Validate) -> None:
    message = validate("--set", "data.columns.txt=review", code=3).stderr
    assert "data.columns.txt: there is no such field; did you mean 'text'?" in message
    message = validate("--set", "resources.tolerations=[{kee: a}]", code=3).stderr
    assert "there is no such field; did you mean 'key'?" in message


def test_machines_get_documents_or_faults(validate: Validate) -> None:
    result = validate("--json", "--set", "data.limit.test=5")
    (task,) = json.loads(result.stdout)
    assert define_task(task, where="stdout", folder=Path()).name == "reviews"
    assert "warning: reviews: test has only 5 rows" in result.stderr
    error = json.loads(validate("--json", "--set", "data.columns.text=reviw", code=4).stdout)["error"]
    assert (error["kind"], error["faults"][0]["where"]) == ("InvalidDataError", "rows.csv")
    error = json.loads(validate("--json", "--set", "method.name=lroa", code=3).stdout)["error"]
    assert error["faults"][0]["remedy"] == "did you mean 'lora'?"
