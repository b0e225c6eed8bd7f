"""Which tasks a change in a repository has touched."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lorry_pipelines.retraining.selection import choose_touched
from lorry_registry.errors import UsageError
from lorry_registry.tasks.task_spec import TaskSpec


def run_git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *identity, "-C", folder, *arguments], check=True, capture_output=True)


class Repository:
    """A repository with two tasks, their data and a base."""

    def __init__(self, folder: Path, make_spec: Callable[..., TaskSpec]) -> None:
        self.folder = folder
        self.tasks: dict[Path, TaskSpec] = {}
        run_git(folder, "init", "--quiet", ".")
        for name in ("films", "food"):
            self.write(f"data/{name}.jsonl", "{}")
            spec = make_spec(
                name, source=str(folder / f"data/{name}.jsonl"), base=str(folder / f"bases/{name}")
            )
            self.tasks[self.write(f"tasks/{name}.yaml", f"name: {name}\n")] = spec
            self.write(f"bases/{name}/config.json", "{}")
        self.write("README.md", "Tasks.")
        self.commit()

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    def commit(self) -> None:
        run_git(self.folder, "add", ".")
        run_git(self.folder, "commit", "--quiet", "-m", "x")

    def choose(self, reference: str = "HEAD") -> list[str]:
        return [spec.name for spec in choose_touched(self.tasks, reference)]


def make_task(name: str, *, source: str, base: str) -> TaskSpec:
    return TaskSpec.model_validate(
        {
            "name": name,
            "kind": "text-classification",
            "base": {"model": base},
            "data": {"source": source},
            "method": {"name": "lora"},
        }
    )


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    # With a name that git would quote.
    folder = tmp_path / "aufgäben und daten"
    folder.mkdir()
    return Repository(folder, make_task)


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ("README.md", []),
        ("tasks/films.yaml", ["films"]),
        ("data/food.jsonl", ["food"]),
        ("bases/films/config.json", ["films"]),
        ("bases/food/new.txt", ["food"]),
        ("data/films.jsonl.bak", []),
    ],
)
def test_the_file_the_data_and_the_base_of_a_task_count(
    repository: Repository, changed: str, found: list[str]
) -> None:
    assert repository.choose() == []
    repository.write(changed, "changed")
    assert repository.choose() == found
    repository.commit()
    assert repository.choose() == []
    assert repository.choose("HEAD~1") == found


@pytest.mark.parametrize("reference", ["nowhere", "--output=stolen", "README.md"])
def test_what_is_no_commit_is_refused(repository: Repository, reference: str) -> None:
    with pytest.raises(UsageError, match="git does not know"):
        repository.choose(reference)
    assert not list(repository.folder.rglob("stolen*"))


def test_without_a_repository_nothing_can_be_said(tmp_path: Path) -> None:
    path = tmp_path / "films.yaml"
    path.write_text("name: films\n", "utf-8")
    with pytest.raises(UsageError):
        choose_touched({path: make_task("films", source="/x.jsonl", base="./base")}, "HEAD")
