"""What cannot work with images is refused, with the reason, before anything is spent."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.methods import METHODS
from lorry_components.models.bases import resolve_base
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.tasks.base_checks import check_base
from lorry_components.tasks.definition import inspect_task
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.errors import BaseModelError, InvalidDataError, InvalidTaskError, MissingExtraError
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
TASK: dict[str, Any] = {
    "name": "dog",
    "kind": "image-generation",
    "base": {"model": "./base"},
    "data": {"source": "./dog", "columns": {"label": "file_name"}},
    "method": {"name": "lora"},
    "generate": {"steps": 30, "guidance": 7.5, "seed": 1},
}


@pytest.fixture
def own_pipeline(pipeline: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pipeline, tmp_path / "own"))


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")


def test_a_plain_task_has_no_faults() -> None:
    spec, faults = inspect_task(TASK)
    assert spec is not None
    assert not faults


@pytest.mark.parametrize(
    ("sections", "where", "what"),
    [
        ({"method": {"name": "bitfit"}}, "method.name", "image-generation trains a UNet; choose full, lora"),
        ({"method": {"name": "prompt-tuning"}}, "method.name", "choose full, lora"),
        ({"generate": {"beams": 4}}, "generate.beams", "is for texts"),
        ({"data": {"source": "hub:a/b"}}, "data.source", "a folder on this machine"),
        ({"data": {"columns": {"text_pair": "b"}}}, "data.columns.text_pair", "one prompt"),
        ({"data": {"template": "{text}"}}, "data.template", "leave it out"),
        ({"train": {"hidden_dropout": 0.1}}, "train.hidden_dropout", "models of text"),
        ({"train": {"cache_frozen_layers": True}}, "train.cache_frozen_layers", "models of text"),
        ({"train": {"offload": True}}, "train.offload", "models of text"),
        ({"evaluate": {"primary": "loss"}}, "evaluate.primary", "less is better; choose 'denoising'"),
        ({"kind": "text-generation"}, "generate.steps", "is for images, and not for text-generation"),
    ],
)
def test_what_a_task_file_may_not_say(sections: dict[str, Any], where: str, what: str) -> None:
    _, faults = inspect_task(TASK | sections)
    assert any(fault.where == where and what in fault.advice for fault in faults), faults


def test_every_other_method_is_refused() -> None:
    for name in METHODS.keys() - {"full", "lora"}:
        _, faults = inspect_task(TASK | {"method": {"name": name}})
        assert "method.name" in {fault.where for fault in faults}


@pytest.mark.parametrize(
    ("part", "values", "sections", "what"),
    [
        ("unet/config.json", {"in_channels": 9}, {}, "inpainting"),
        ("unet/config.json", {"cross_attention_dim": 24}, {}, "reads states of width 24"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, {}, "prediction_type 'sample'"),
        (
            "model_index.json",
            {"unet": ["diffusers", "SD3Transformer2DModel"]},
            {},
            "knows UNet2DConditionModel",
        ),
        (
            "model_index.json",
            {"text_encoder_2": ["transformers", "CLIPTextModel"]},
            {},
            "second text encoder",
        ),
        ("model_index.json", {}, {"generate": {"steps": 1000}}, "fewer than the 1000 times"),
        ("model_index.json", {}, {"method": {"targets": ["to_w"]}}, "is called 'to_w'; did you mean"),
        ("model_index.json", {}, {"method": {"r": 17}}, "rank 17 is above the rank that 'to_k' can have, 16"),
        ("model_index.json", {}, {"method": {"layers": 1, "targets": ["to_q"]}}, "leave 'layers' out"),
    ],
)
def test_a_base_that_does_not_fit(
    make_spec: MakeSpec,
    own_pipeline: Path,
    part: str,
    values: dict[str, Any],
    sections: dict[str, Any],
    what: str,
) -> None:
    check_base(make_spec(own_pipeline), own_pipeline)
    edit(own_pipeline / part, **values)
    with pytest.raises(InvalidTaskError) as caught:
        check_base(make_spec(own_pipeline, **sections), own_pipeline)
    assert any(what in fault.advice for fault in caught.value.faults), caught.value.faults


def test_without_diffusers_the_extra_is_named(
    make_spec: MakeSpec, pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError) as caught:
        check_base(make_spec(pipeline), pipeline)
    assert "lorry[train,images]" in caught.value.todo


def test_a_model_of_text_is_no_base_for_images(make_spec: MakeSpec, pipeline: Path) -> None:
    with pytest.raises(InvalidTaskError, match=r"has no model_index\.json"):
        check_base(make_spec(), pipeline / "text_encoder")


def test_a_pipeline_is_no_base_for_texts(make_spec: MakeSpec, pipeline: Path) -> None:
    spec = make_spec(pipeline, kind="text-classification", method={"targets": ["q_proj"]})
    with pytest.raises(BaseModelError, match="a pipeline that draws images"):
        check_base(spec, pipeline)


def test_the_fingerprint_is_over_all_parts(make_spec: MakeSpec, own_pipeline: Path) -> None:
    spec = make_spec(own_pipeline)
    before = resolve_base(spec.base)
    assert before.identity.architecture == "StableDiffusionPipeline"
    for name in ("README.md", "unet/diffusion_pytorch_model.fp16.safetensors", "unet/notes.txt"):
        (own_pipeline / name).write_text("beside", "utf-8")
    assert resolve_base(spec.base) == before
    seen = {before.identity.fingerprint}
    for name in (
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
        "model_index.json",
    ):
        path = own_pipeline / name
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        seen.add(resolve_base(spec.base).identity.fingerprint)
        path.write_bytes(content)
    assert len(seen) == 8
    assert resolve_base(spec.base) == before


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_pickled_weights_are_refused(make_spec: MakeSpec, own_pipeline: Path, part: str) -> None:
    for weights in (own_pipeline / part).glob("*.safetensors"):
        weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(BaseModelError, match="pickles"):
        resolve_base(make_spec(own_pipeline).base)


@pytest.mark.parametrize("name", ["vae/config.json", "scheduler/scheduler_config.json"])
def test_a_missing_part_is_told(make_spec: MakeSpec, own_pipeline: Path, name: str) -> None:
    (own_pipeline / name).unlink()
    with pytest.raises(BaseModelError, match=f"there is no {Path(name).name}"):
        resolve_base(make_spec(own_pipeline).base)


def test_images_much_smaller_than_those_of_the_base(
    make_spec: MakeSpec, own_pipeline: Path, tmp_path: Path
) -> None:
    edit(own_pipeline / "unet" / "config.json", sample_size=80)
    spec = make_spec(own_pipeline)
    prepare_data(resolve_task(spec), tmp_path / "data")
    with pytest.raises(InvalidDataError, match="9 faults") as caught:
        finetune(
            resolve_task(spec),
            tmp_path / "data",
            tmp_path / "candidate",
            checkpoints=tmp_path / "checkpoints",
        )
    assert "draws 160x160 pixels: give images whose sides have 80 or more" in caught.value.todo


def test_a_damaged_unet_is_told(make_spec: MakeSpec, own_pipeline: Path, tmp_path: Path) -> None:
    path = own_pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    spec = make_spec(own_pipeline)
    prepare_data(resolve_task(spec), tmp_path / "data")
    with pytest.raises(BaseModelError, match="cannot be loaded as UNet2DConditionModel"):
        finetune(
            resolve_task(spec),
            tmp_path / "data",
            tmp_path / "candidate",
            checkpoints=tmp_path / "checkpoints",
        )
