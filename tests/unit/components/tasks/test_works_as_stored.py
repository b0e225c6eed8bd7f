"""What the files of a base say without torch: that a task works, or nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.methods import METHODS
from lorry_components.tasks.base_checks import check_base, works_as_stored
from lorry_registry.errors import InvalidTaskError
from lorry_registry.tasks.task_spec import TaskSpec

FamilyBase = Callable[[str], Path]

STYLES = ("bert", "roberta", "distilbert", "modernbert", "deberta-v2", "gpt2", "llama", "t5")
OPTIONS: dict[str, dict[str, Any]] = {"lora": {"r": 4}, "adalora": {"r": 4, "target_r": 2}}
# What needs a library's code: the layout of weights, the arguments of a model, a class of PEFT's.
NEED_CODE = {"qlora", "vera", "p-tuning-v2", "peft"}
TASKS: list[dict[str, Any]] = [
    {"method": {"name": "lora", "r": 33, "targets": ["query"]}},
    {"method": {"name": "lora", "r": 4, "targets": ["valeu"]}},
    {"method": {"name": "lora", "r": 4, "targets": ["word_embeddings"]}},
    {"method": {"name": "lora", "r": 4, "targets": ["relative_attention_bias"]}},
    {"method": {"name": "lora", "r": 4, "targets": "all-linear", "layers": 2}},
    {"method": {"name": "lora", "r": 4, "targets": "all-linear", "layers": 3}},
    {"method": {"name": "lora", "r": 4, "init": "olora"}},
    {"method": {"name": "ft-top", "layers": 3}},
    {"method": {"name": "adapter-h", "size": 33}},
    {"method": {"name": "prompt-tuning", "tokens": 4000}},
    {"method": {"name": "full"}, "data": {"source": "rows.jsonl", "max_length": 4000}},
    {"method": {"name": "full"}, "train": {"cache_frozen_layers": True}},
    {"method": {"name": "full"}, "train": {"hidden_dropout": 0.1, "attention_dropout": 0.1}},
    {"method": {"name": "full"}, "head": {"dropout": 0.1}},
    {"method": {"name": "full"}, "kind": "text-generation"},
    {"method": {"name": "full"}, "kind": "text-to-text"},
    {
        "method": {"name": "full"},
        "kind": "knowledge-probing",
        "data": {"source": "a", "template": "{text} {label}."},
    },
]


@pytest.fixture
def find_base(family_base: FamilyBase, tmp_path: Path) -> FamilyBase:
    """Return a function from a family to its base; as on the hub, T5's says how long its texts were."""

    def find(style: str) -> Path:
        if style != "t5":
            return family_base(style)
        base = Path(shutil.copytree(family_base("t5"), tmp_path / "t5"))
        config = json.loads((base / "config.json").read_text("utf-8"))
        (base / "config.json").write_text(json.dumps(config | {"n_positions": 66}))
        return base

    return find


def make_spec(base: Path, **sections: Any) -> TaskSpec:
    document = {
        "name": "reviews",
        "kind": "regression",
        "base": {"model": f"{base}/"},
        "data": {"source": "rows.jsonl", "max_length": 16},
    }
    return TaskSpec.model_validate(document | sections)


def works(spec: TaskSpec, base: Path) -> bool:
    """Return what the check says that builds the model."""
    try:
        check_base(spec, base)
    except InvalidTaskError:
        return False
    return True


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_stored_is_enough_for_most_methods(find_base: FamilyBase, style: str, method: str) -> None:
    base = find_base(style)
    options = OPTIONS.get(method, {"type": "LOHA"} if method == "peft" else {})
    spec = make_spec(base, method={"name": method, **options})
    if method in NEED_CODE:
        assert not works_as_stored(spec, base)
    else:
        assert works_as_stored(spec, base) == works(spec, base)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("sections", TASKS, ids=json.dumps)
def test_nothing_passes_that_does_not_work(
    find_base: FamilyBase, style: str, sections: dict[str, Any]
) -> None:
    base = find_base(style)
    spec = make_spec(base, **sections)
    assert works(spec, base) or not works_as_stored(spec, base)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "brt"},
        {"model_type": "../bert"},
        {"num_hidden_layers": 3},
        {"vocab_size": 7},
        {"hidden_size": 31},
        {"max_position_embeddings": None},
        {"quantization_config": {"load_in_4bit": True}},
    ],
    ids=json.dumps,
)
def test_a_configuration_that_does_not_suit_its_weights_says_nothing(
    family_base: FamilyBase, tmp_path: Path, changes: dict[str, Any]
) -> None:
    base = Path(shutil.copytree(family_base("bert"), tmp_path / "base"))
    spec = make_spec(base, method={"name": "full"})
    assert works_as_stored(spec, base)
    config = json.loads((base / "config.json").read_text("utf-8"))
    (base / "config.json").write_text(json.dumps(config | changes))
    assert not works_as_stored(spec, base)


def test_weights_that_are_missing_or_cut_short_say_nothing(family_base: FamilyBase, tmp_path: Path) -> None:
    base = Path(shutil.copytree(family_base("bert"), tmp_path / "base"))
    spec = make_spec(base, method={"name": "full"})
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert not works_as_stored(spec, base)
    weights.unlink()
    assert not works_as_stored(spec, base)
