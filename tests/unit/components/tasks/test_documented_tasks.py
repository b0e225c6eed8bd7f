"""The task files that the documentation shows are valid ones."""

import re
from pathlib import Path

import pytest

from lorry_components.tasks.definition import find_task_type, load_task_file

PAGE = Path(__file__).parents[4] / "docs" / "task-file.md"
SHOWN = re.findall(r"```yaml\n(name: (\S+) .*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def test_both_examples_of_written_text_are_there() -> None:
    assert {"e2e", "wikisql"} <= {name for _, name in SHOWN}


@pytest.mark.parametrize(("text", "name"), SHOWN, ids=[name for _, name in SHOWN])
def test_a_shown_task_is_valid(text: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text, "utf-8")
    spec = load_task_file(path)
    assert spec.name == name
    assert find_task_type(spec).name == spec.kind
