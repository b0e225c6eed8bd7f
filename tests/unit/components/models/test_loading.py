"""A base whose files are there, and do not load."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lorry_components.task_types import InputForm, TextClassification
from lorry_registry.errors import BaseModelError


def cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:4000])


def change_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 48, "intermediate_size": 96}))


def name_unknown_family(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "no-such-family"}))


@pytest.mark.parametrize("damage", [cut_weights, change_size, name_unknown_family])
def test_a_damaged_base_is_told_in_one_line(
    make_base: Callable[..., Path], damage: Callable[[Path], None]
) -> None:
    folder = make_base()
    damage(folder)
    with pytest.raises(BaseModelError, match="cannot be loaded: ") as caught:
        TextClassification(InputForm(max_length=32)).load_model(folder, ["bad", "good"])
    assert caught.value.where == str(folder)
    assert "\n" not in caught.value.what
    assert caught.value.todo
