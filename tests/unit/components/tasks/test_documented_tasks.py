"""The task files that the documentation shows are valid ones."""

import re
from pathlib import Path

import pytest

from lorry_components.tasks.definition import find_task_type, load_task_file

DOCS = Path(__file__).parents[4] / "docs"
KINDS = ("question-answering", "text-generation", "knowledge-probing", "image-generation")
SHOWN = [
    shown
    for kind in KINDS
    for shown in re.findall(
        r"```yaml\n(name: (\S+).*?)```", (DOCS / f"{kind}.md").read_text("utf-8"), re.DOTALL
    )
]


def test_each_kind_has_an_example() -> None:
    assert {name for _, name in SHOWN} == {"manuals", "e2e", "wikisql", "country", "dog"}


@pytest.mark.parametrize(("text", "name"), SHOWN, ids=[name for _, name in SHOWN])
def test_a_shown_task_is_valid(text: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text, "utf-8")
    spec = load_task_file(path)
    assert spec.name == name
    assert find_task_type(spec).name == spec.kind
