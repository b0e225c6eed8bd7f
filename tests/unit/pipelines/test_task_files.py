"""Which task files a command means."""

from pathlib import Path

import pytest

from lorry_pipelines.task_files import find_task_files
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
