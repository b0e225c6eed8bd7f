"""``lorry submit --dry-run``: what it would do by what is known, and what is missing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from lorry_pipelines.cli import lorry

TASK = {
    "name": "reviews",
    "kind": "text-classification",
    "base": {"model": "owner/base", "revision": "a" * 40},
    "data": {"source": "rows.csv"},
    "method": {"name": "lora"},
}
Submit = Callable[..., Result]


@pytest.fixture
def submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submit:
    """Return a function that tries a submission, in a folder with a task whose store is a folder, too."""
    monkeypatch.chdir(tmp_path)
    for name in ("LORRY_KUBEFLOW_HOST", "LORRY_IMAGE", "LORRY_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LORRY_HOME", str(tmp_path / "home"))
    rows = [f"review {number} is {number % 2},{number % 2}" for number in range(100)]
    Path("rows.csv").write_text("\n".join(["text,label", *rows]) + "\n", "utf-8")
    Path("reviews.yaml").write_text(yaml.safe_dump(TASK), "utf-8")

    def run(*arguments: str, code: int) -> Result:
        result = CliRunner().invoke(lorry, ["submit", "reviews.yaml", *arguments])
        assert result.exit_code == code, result.output
        return result

    return run


def test_a_dry_run_shows_what_is_known_and_lists_what_is_missing(submit: Submit) -> None:
    result = submit("--dry-run", code=3)
    assert result.stdout.startswith(
        "experiment: lorry\ntasks:\n  reviews: its data are not in the store yet\n\nWhat it asks for"
    )
    assert "Trains on" in result.stdout
    # What is not known has no column, and what is empty no line.
    for text in ("unknown", "current:", "Costs", "Expected"):
        assert text not in result.stdout
    assert "what it costs is not known: the profile has no prices" in result.stdout
    lines = result.stderr.splitlines()
    assert lines[0] == f"would copy {Path('rows.csv').resolve()} to the store"
    for place in ("--host", "LORRY_IMAGE", "LORRY_STORE", "MLFLOW_TRACKING_URI"):
        assert [line for line in lines if place in line.partition(": ")[0]], place
    assert not Path("home", "store", "data").exists()


def test_a_dry_run_as_json(submit: Submit) -> None:
    shown = json.loads(submit("--dry-run", "--json", code=3).stdout)
    assert shown["tasks"] == {"reviews": "its data are not in the store yet"}
    assert (shown["runs"], shown["current"]) == ([], {})
    assert shown["costs"]["tasks"]["reviews"]["longest_seconds"] > 0


def test_a_submission_is_refused_before_anything_is_done(submit: Submit) -> None:
    assert "it is not known where Kubeflow Pipelines is" in submit(code=2).stderr
    refused = submit("--host", "http://localhost:8080", code=3)
    assert refused.stdout == ""
    assert "LORRY_STORE" in refused.stderr
    assert "--host" not in refused.stderr
