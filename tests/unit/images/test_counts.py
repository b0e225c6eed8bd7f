"""What LoRA trains on Stable Diffusion v1-4's UNet, whose configuration is all that is needed."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from lorry_components.finetune.step import finetune
from lorry_components.kinds.diffusion import build_skeleton, load_diffusers_model
from lorry_components.methods import METHODS
from lorry_components.planning import plan_task
from lorry_components.planning.devices import GIB
from lorry_components.planning.images import ImagePipeline, adapt_unet, measure_unet, read_pipeline
from lorry_components.planning.memory import Recipe, estimate_training
from lorry_components.planning.plan import make_footprint
from lorry_components.prepare_data.step import prepare_data
from lorry_pipelines.cli.planning import plan_files
from lorry_pipelines.planning import refuse_what_does_not_fit
from lorry_registry.errors import InvalidTaskError
from lorry_registry.manifest import WEIGHTS_NAME
from lorry_registry.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
pytest.importorskip("diffusers", reason="diffusers is not installed: pip install lorry[images]")

V1_4: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}


VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
TEXT_ENCODER: dict[str, Any] = {
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "max_position_embeddings": 77,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "vocab_size": 49408,
}


@pytest.fixture(scope="module")
def pipeline_v1_4() -> ImagePipeline:
    return ImagePipeline({"unet": V1_4, "vae": VAE, "text_encoder": TEXT_ENCODER}, "as published")


@pytest.mark.parametrize(("rank", "trained"), [(4, 797_184), (8, 1_594_368), (16, 3_188_736)])
def test_lora_on_stable_diffusion(rank: int, trained: int) -> None:
    unet = build_skeleton("UNet2DConditionModel", V1_4)
    assert sum(parameter.numel() for parameter in unet.parameters()) == 859_520_964
    method = METHODS["lora"]({"r": rank})
    with torch.device("meta"):
        counts = method.count_parameters(method.adapt(unet, frozenset()), frozenset())
    assert (counts.adapter, counts.head) == (trained, 0)
    assert counts.total == 859_520_964 + trained
    # Within the 64 MiB that an adapter may take.
    assert trained * 4 < 13 * 2**20


def test_the_parts_of_stable_diffusion(pipeline_v1_4: ImagePipeline) -> None:
    assert pipeline_v1_4.side == 512
    # An autoencoder of 83,653,863 and a text encoder of 123,060,480.
    assert pipeline_v1_4.count_around() == 206_714_343


@pytest.mark.parametrize(
    ("name", "is_checkpointed", "published"),
    [("full", False, 27.5), ("lora", False, 15.5), ("lora", True, 8.12)],
)
def test_the_published_memory_of_stable_diffusion(
    pipeline_v1_4: ImagePipeline, name: str, is_checkpointed: bool, published: float
) -> None:
    """Taken to be of two images a step, as with prior preservation; a trained text encoder is not counted."""
    from diffusers.models.attention_processor import AttnProcessor

    method = METHODS[name]({})
    adapted: Any = adapt_unet(pipeline_v1_4, method)
    unet = adapted.model.get_base_model() if name == "lora" else adapted.model
    unet.set_attn_processor(AttnProcessor())
    activations = measure_unet(adapted.model, pipeline_v1_4, rows=2, on_cuda=True)
    footprint = make_footprint(adapted, method, activations, 2)
    footprint = dataclasses.replace(footprint, frozen=footprint.frozen + pipeline_v1_4.count_around())
    estimate = estimate_training(footprint, Recipe("cuda", "fp32", 2, is_checkpointed=is_checkpointed))
    assert 0.78 <= estimate.formula / GIB / published <= 0.85


def test_a_plan_is_what_a_run_trains_and_keeps(make_spec: MakeSpec, pipeline: Path, tmp_path: Path) -> None:
    spec = make_spec(pipeline, train={"steps": 1}, method={"r": 4})
    plan = plan_task(spec)
    prepare_data(spec, tmp_path / "data")
    summary = finetune(spec, tmp_path / "data", tmp_path / "candidate", checkpoints=tmp_path / "checkpoints")
    assert plan.parameters == summary.parameters
    assert plan.adapter_bytes == (tmp_path / "candidate" / "adapter" / WEIGHTS_NAME).stat().st_size
    assert (plan.rows, plan.side, plan.tokens) == (2, 32, 24)
    assert not any("QLoRA" in advice.change for advice in plan.advice)

    read = read_pipeline(spec.base)
    planned = measure_unet(adapt_unet(read, METHODS["lora"]({"r": 4})).model, read, rows=2, on_cuda=False)
    unet = load_diffusers_model("UNet2DConditionModel", pipeline / "unet")
    adapted = METHODS["lora"]({"r": 4}).adapt(unet, frozenset())
    measured = measure_unet(adapted, read, rows=2, on_cuda=False)
    assert planned.layers == measured.layers > 0
    assert planned.kept == pytest.approx(measured.kept, rel=0.02)


def test_the_command_tells_the_size_of_images(make_spec: MakeSpec, pipeline: Path, tmp_path: Path) -> None:
    document = make_spec(pipeline).model_dump(mode="json", exclude_defaults=True)
    (tmp_path / "dog.yaml").write_text(json.dumps(document), "utf-8")
    result = CliRunner().invoke(plan_files, [str(tmp_path / "dog.yaml")], catch_exceptions=False)
    assert "2 images of 32x32 pixels" in result.stdout
    (planned,) = json.loads(
        CliRunner().invoke(plan_files, [str(tmp_path / "dog.yaml"), "--json"], catch_exceptions=False).stdout
    )
    assert planned["side"] == 32
    assert planned["faults"] == []


def test_what_will_not_fit_is_refused(make_spec: MakeSpec, pipeline: Path) -> None:
    refuse_what_does_not_fit([make_spec(pipeline)])
    with pytest.raises(InvalidTaskError, match="memory"):
        refuse_what_does_not_fit([make_spec(pipeline, resources={"memory": "100Mi"})])
