"""``lorry init``: what it writes, what it says, and that it overwrites nothing."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from lorry_pipelines.cli import lorry
from lorry_registry.errors import ConflictError, InvalidDataError, InvalidTaskError, StoreError, UsageError


@pytest.fixture
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_rows: Path) -> Path:
    """A table of three classes in the working folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "My Reviews.jsonl"
    path.write_bytes(tiny_rows.read_bytes())
    return path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(lorry, ["init", *arguments])


def test_the_file_is_valid_and_each_guess_is_explained(reviews: Path) -> None:
    result = invoke(reviews.name)
    assert result.exit_code == 0, result.output
    for expected in ("90 rows, 2 columns", "text-classification", "'label' holds 3 different values"):
        assert expected in result.stdout
    assert "lorry run my-reviews.yaml" in result.stdout
    content = Path("my-reviews.yaml").read_text("utf-8")
    assert "# kind: 'label' holds 3 different values" in content
    document = yaml.safe_load(content)
    assert document["data"]["source"] == "My Reviews.jsonl"
    assert CliRunner().invoke(lorry, ["validate", "my-reviews.yaml"]).exit_code == 0


def test_a_dry_run_prints_the_file_alone_on_stdout(reviews: Path) -> None:
    result = invoke(reviews.name, "--dry-run", "--name", "films")
    assert yaml.safe_load(result.stdout)["name"] == "films"
    assert "3 different values" in result.stderr
    assert list(Path().glob("*.yaml")) == []


def test_json_has_the_task_and_the_guesses(reviews: Path) -> None:
    document = json.loads(invoke(reviews.name, "--json").stdout)
    assert document["file"] == "my-reviews.yaml"
    assert document["task"]["kind"] == "text-classification"
    assert {"about", "choice", "why", "is_sure"} == set(document["guesses"][0])


def test_the_source_is_named_from_the_task_files_folder(reviews: Path) -> None:
    assert invoke(reviews.name, "--output", "tasks/films.yaml").exit_code == 0
    assert (
        yaml.safe_load(Path("tasks/films.yaml").read_text("utf-8"))["data"]["source"] == "../My Reviews.jsonl"
    )


def test_nothing_is_overwritten(reviews: Path) -> None:
    Path("my-reviews.yaml").write_text("mine\n", "utf-8")
    assert invoke(reviews.name).exit_code == ConflictError.exit_code
    assert Path("my-reviews.yaml").read_text("utf-8") == "mine\n"


def test_a_repository_is_whole_or_not_there(reviews: Path, tmp_path: Path) -> None:
    Path("repo").mkdir()
    Path("repo/Makefile").write_text("mine\n", "utf-8")
    assert invoke("--repository", "repo", reviews.name).exit_code == ConflictError.exit_code
    assert [path.name for path in Path("repo").rglob("*")] == ["Makefile"]
    Path("repo/Makefile").unlink()
    Path("repo/.git").mkdir()
    assert invoke("--repository", "repo", reviews.name).exit_code == 0
    assert Path("repo/data/My Reviews.jsonl").read_bytes() == reviews.read_bytes()
    assert CliRunner().invoke(lorry, ["validate", "repo/tasks/my-reviews.yaml"]).exit_code == 0
    assert (tmp_path / "repo/.github/workflows/tasks.yml").is_file()
    # Not by a name that somebody else may have on an index.
    wanted = (tmp_path / "repo/requirements.txt").read_text("utf-8").splitlines()[1]
    assert wanted.startswith("./wheels/lorry-")


def test_a_repository_without_a_table_waits_for_its_first_task(reviews: Path) -> None:
    result = invoke("--repository", "empty")
    assert result.exit_code == 0
    assert "lorry init DATA.csv --output tasks/NAME.yaml" in result.stdout
    assert Path("empty/tasks").is_dir()


def test_a_large_table_does_not_go_into_git(reviews: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorry_pipelines.starting.repository.MOST_DATA_BYTES", 100)
    result = invoke("--repository", "repo", reviews.name)
    assert result.exit_code == StoreError.exit_code
    assert "s3://" in result.stderr
    assert not Path("repo").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], UsageError.exit_code),
        (["--dry-run", "--repository", "repo"], UsageError.exit_code),
        (["nothing.csv"], InvalidDataError.exit_code),
        (["My Reviews.jsonl", "--label", "lable"], InvalidTaskError.exit_code),
        (["My Reviews.jsonl", "--name", "Not a name"], InvalidTaskError.exit_code),
        (["My Reviews.jsonl", "--kind", "text-generation"], UsageError.exit_code),
        (["My Reviews.jsonl", "--kind", "regression"], InvalidDataError.exit_code),
        (["My Reviews.jsonl", "--output", "a.yaml", "--repository", "repo"], UsageError.exit_code),
    ],
)
def test_what_makes_no_task_is_refused(reviews: Path, arguments: list[str], code: int) -> None:
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert not list(Path().glob("*.yaml"))
    assert not Path("repo").exists()


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_password_in_an_address_is_not_printed(reviews: Path, more: list[str]) -> None:
    result = invoke("https://me:hunter2@host/x.csv", *more)
    assert result.exit_code == InvalidDataError.exit_code
    assert "is an address, and files are read here" in result.output
    assert "hunter2" not in result.output
