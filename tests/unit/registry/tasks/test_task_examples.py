"""A section that is missing, or no section, is told with what to write."""

from pathlib import Path

import pytest

from lorry_registry.errors import InvalidTaskError
from lorry_registry.tasks.task_loading import load_task


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "method: is missing; write method: {name: lora}"),
        ("method: lora", "line 5, method: is 'lora', not a section with fields; write method: {name: lora}"),
        ("method: [lora]", "method: is ['lora'], not a section with fields; write method: {name: lora}"),
    ],
)
def test_what_to_write_is_told(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(
        f"name: spam\nkind: text-classification\nbase: {{model: ./base}}\ndata: {{source: a.csv}}\n{line}\n"
    )
    with pytest.raises(InvalidTaskError) as caught:
        load_task(path)
    assert told in str(caught.value)
