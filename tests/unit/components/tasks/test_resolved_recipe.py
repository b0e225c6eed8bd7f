"""What an adapter is made of: defaults written out, and versions of code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import create_model

from lorry_components.methods.peft.lora import Lora, LoraOptions
from lorry_components.task_types import TASK_TYPES
from lorry_components.tasks.changes import describe_changes, find_changes
from lorry_components.tasks.resolution import resolve_task
from lorry_components.tasks.resolved_recipe import resolve_recipe, write_out
from lorry_registry.manifest import Manifest
from lorry_registry.tasks.task_spec import TaskSpec

from fixtures.adapters import write_adapter

MakeSpec = Callable[..., TaskSpec]


class Shop:
    """A task, and the manifest of an adapter that was made of it."""

    def __init__(self, manifest: Manifest, make: Callable[..., TaskSpec]) -> None:
        self._manifest = manifest
        self.make = make

    def make_manifest(self, spec: TaskSpec, **inputs: Any) -> Manifest:
        task = resolve_task(spec)
        own = self._manifest.inputs.model_copy(
            update={
                "source_digest": task.source_digest,
                "recipe_digest": spec.recipe_digest,
                "makeup": resolve_recipe(spec),
                **inputs,
            }
        )
        recipe = spec.describe_recipe()
        return self._manifest.model_copy(update={"base": task.base_identity, "recipe": recipe, "inputs": own})

    def find(self, spec: TaskSpec, manifest: Manifest) -> dict[str, str]:
        return describe_changes(resolve_task(spec), manifest)


@pytest.fixture
def shop(make_spec: MakeSpec, tmp_path: Path) -> Shop:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"text": "a", "label": 1}\n', "utf-8")

    def make(**sections: Any) -> TaskSpec:
        return make_spec(data={"source": str(source)}, **sections)

    return Shop(write_adapter(tmp_path / "adapter").manifest, make)


def change_alpha(monkeypatch: pytest.MonkeyPatch, default: int) -> None:
    """Let this Lorry have another default for LoRA's alpha."""
    changed = create_model("Changed", __base__=LoraOptions, alpha=(int | float, default))
    monkeypatch.setattr(Lora, "options_model", changed)


def test_every_default_is_written_out(shop: Shop) -> None:
    spec = shop.make(method={"name": "lora", "r": 4, "targets": ["query"]}, train={"learning_rate": None})
    resolved = resolve_recipe(spec)
    assert resolved.defaults["method.options.alpha"] == LoraOptions().alpha
    assert resolved.defaults["train.learning_rate"] == Lora.learning_rate
    # What the recipe says is not said twice, nor what is for images alone.
    assert {"method.options.r", "train.epochs", "generate.guidance"}.isdisjoint(resolved.defaults)
    assert write_out(spec)["method.options.r"] == 4
    assert resolved.code == {
        "step.prepare_data": 1,
        "step.finetune": 2,
        f"kind.{spec.kind}": TASK_TYPES[spec.kind].code_version,
        "method.lora": 1,
    }


def test_a_default_that_changed_changes_the_digest_and_is_told(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = shop.make(method={"name": "lora", "r": 4, "targets": ["query"]})
    manifest = shop.make_manifest(spec)
    assert shop.find(spec, manifest) == {}
    change_alpha(monkeypatch, 32)
    changed = shop.make(method={"name": "lora", "r": 4, "targets": ["query"]})
    assert shop.find(changed, manifest) == {"recipe": "method.alpha 16 -> 32"}
    assert resolve_recipe(changed).digest != resolve_recipe(spec).digest
    (change,) = find_changes(resolve_task(changed), manifest)
    assert (change.part, dict(change.fields)) == ("recipe", {"method.alpha": (16, 32)})
    # Whoever has written it out is not concerned.
    said = shop.make(method={"name": "lora", "r": 4, "alpha": 16, "targets": ["query"]})
    assert shop.find(said, manifest) == {}


def test_a_default_that_is_written_out_is_no_change(shop: Shop) -> None:
    manifest = shop.make_manifest(shop.make(method={"name": "lora", "targets": ["query"]}))
    said = shop.make(method={"name": "lora", "r": 8, "dropout": 0.0, "targets": ["query"]})
    assert said.recipe_digest != manifest.inputs.recipe_digest
    assert shop.find(said, manifest) == {}


def test_a_field_of_a_later_lorry_is_a_change_only_where_it_is_set(shop: Shop) -> None:
    spec = shop.make(method={"name": "lora", "targets": ["query"]})
    resolved = resolve_recipe(spec)
    former = {name: value for name, value in resolved.defaults.items() if name != "method.options.rslora"}
    manifest = shop.make_manifest(spec, makeup=resolved.model_copy(update={"defaults": former}))
    assert shop.find(spec, manifest) == {}
    used = shop.make(method={"name": "lora", "rslora": True, "targets": ["query"]})
    assert shop.find(used, manifest) == {"recipe": "method.rslora the default -> True"}
    # The recipe has the fields of a section with their defaults.
    train = {key: value for key, value in manifest.recipe["train"].items() if key != "optimizer"}
    manifest = manifest.model_copy(update={"recipe": {**manifest.recipe, "train": train}})
    assert shop.find(spec, manifest) == {}
    other = shop.make(method={"name": "lora", "targets": ["query"]}, train={"optimizer": "adamw-8bit"})
    assert shop.find(other, manifest) == {"recipe": "train.optimizer the default -> adamw-8bit"}
    # Nor is an option that is not there any more, if nobody had set it.
    gone = resolved.model_copy(update={"defaults": {**resolved.defaults, "method.options.beta": 3}})
    assert shop.find(spec, shop.make_manifest(spec, makeup=gone)) == {}


def test_another_version_of_the_code_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = shop.make()
    manifest = shop.make_manifest(spec)
    monkeypatch.setattr(Lora, "code_version", 2)
    assert shop.find(spec, manifest) == {"code": "method.lora 1 -> 2"}


def test_libraries_count_only_where_a_task_asks(shop: Shop) -> None:
    spec, asking = shop.make(), shop.make(retrain={"on": ["libraries"]})
    manifest = shop.make_manifest(spec).model_copy(
        update={"libraries": {"torch": "0.1", "not-installed": "1", "lorry": "0.0.1"}}
    )
    assert shop.find(spec, manifest) == {}
    told = shop.find(asking, manifest)
    assert set(told) == {"libraries"}
    assert told["libraries"].startswith("torch 0.1 -> ")
    assert "lorry" not in told["libraries"]
    assert spec.recipe_digest == asking.recipe_digest
