"""Which task files a command means."""

from pathlib import Path

import pytest

from lorry_pipelines.task_files import find_task_files, name_task_file
from lorry_registry.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tasks").mkdir()
    for name in ("a", "b"):
        (tmp_path / "tasks" / f"{name}.yaml").write_text(f"name: {name}-task\n", "utf-8")
    (tmp_path / "tasks" / "notes.txt").write_text("no task", "utf-8")
    (tmp_path / "tasks" / "broken.yml").write_text("a: [", "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([], ["a.yaml", "b.yaml", "broken.yml"]),
        (["tasks"], ["a.yaml", "b.yaml", "broken.yml"]),
        (["tasks/b.yaml", "b-task", "a-task"], ["b.yaml", "a.yaml"]),
        (["broken"], ["broken.yml"]),
        # Whoever reads it says that it is missing.
        (["tasks/missing.yaml"], ["missing.yaml"]),
    ],
)
def test_files_folders_and_names(folder: Path, wanted: list[str], found: list[str]) -> None:
    assert [path.name for path in find_task_files(wanted, folder)] == found


def test_what_is_not_there_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no task 'a-tusk'") as caught:
        find_task_files(["a-tusk"], folder)
    assert caught.value.todo == "did you mean 'a-task'?"
    with pytest.raises(UsageError, match="no task files"):
        find_task_files([], tmp_path / "tasks")


def test_a_file_that_init_wrote_is_found_by_the_name_of_its_task(tmp_path: Path) -> None:
    path = tmp_path / "reviews.yaml"
    path.write_text("name: reviews\n", "utf-8")
    (tmp_path / "compose.yaml").write_text("services: {}\n", "utf-8")
    assert find_task_files(["reviews"], tmp_path) == [path]
    with pytest.raises(UsageError, match="no task files"):
        find_task_files(["compose"], tmp_path / "elsewhere")
    # Beside a folder of tasks as well; what is in there comes first.
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "a.yaml").write_text("name: a-task\n", "utf-8")
    assert find_task_files(["reviews", "a-task"], tmp_path) == [path, tmp_path / "tasks" / "a.yaml"]
    (tmp_path / "tasks" / "b.yaml").write_text("name: reviews\n", "utf-8")
    assert find_task_files(["reviews"], tmp_path) == [tmp_path / "tasks" / "b.yaml"]


@pytest.mark.parametrize(
    ("file", "called"),
    [
        ("tasks/a.yaml", "a-task"),
        ("a-task.yaml", "a-task"),
        ("own.yaml", "own.yaml"),
        ("more/a-task.yaml", "more/a-task.yaml"),
    ],
)
def test_what_to_write_for_a_task_finds_its_file(tmp_path: Path, file: str, called: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("name: a-task\n", "utf-8")
    assert name_task_file("a-task", path, tmp_path) == called
    assert find_task_files([called], tmp_path) == [path]
