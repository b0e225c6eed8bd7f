"""What LoRA trains on Stable Diffusion v1-4's UNet, whose configuration is all that is needed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from lorry_components.memory import plan_task
from lorry_components.memory.architecture import Architecture, adapt_architecture
from lorry_components.memory.backward import measure_backward
from lorry_components.memory.diffusion_pipeline import (
    ImagePipeline,
    adapt_unet,
    measure_unet,
    read_known_pipeline,
    read_pipeline,
)
from lorry_components.methods import METHODS
from lorry_components.models.diffusers_models import build_diffusers_skeleton, load_diffusers_model
from lorry_components.models.dimensions import read_width
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.task_types.diffusion.latent_diffusion import build_denoising_model
from lorry_components.tasks.resolution import resolve_task
from lorry_pipelines.cli.plan import plan_files
from lorry_pipelines.scheduling import refuse_what_does_not_fit
from lorry_registry.errors import InvalidTaskError
from lorry_registry.manifest import WEIGHTS_NAME
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
pytest.importorskip("diffusers", reason="diffusers is not installed: pip install lorry[images]")


@pytest.fixture(scope="module")
def pipeline_v1_4() -> ImagePipeline:
    return read_known_pipeline("CompVis/stable-diffusion-v1-4")


@pytest.mark.parametrize(("rank", "trained"), [(4, 797_184), (8, 1_594_368), (16, 3_188_736)])
def test_lora_on_stable_diffusion(pipeline_v1_4: ImagePipeline, rank: int, trained: int) -> None:
    unet = build_diffusers_skeleton("UNet2DConditionModel", pipeline_v1_4.parts["unet"])
    assert sum(parameter.numel() for parameter in unet.parameters()) == 859_520_964
    assert read_width(unet) == 1280
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


def test_a_checkpointed_backward_pass_holds_no_more_than_planned(pipeline_v1_4: ImagePipeline) -> None:
    from diffusers import DDIMScheduler
    from diffusers.models.attention_processor import AttnProcessor

    unet: Any = build_diffusers_skeleton("UNet2DConditionModel", pipeline_v1_4.parts["unet"])
    # Autograd computes layers again outside of the mode that stands in for fused kernels.
    unet.set_attn_processor(AttnProcessor())
    adapted = adapt_architecture(METHODS["lora"]({"r": 8}), Architecture(unet, frozenset()))
    planned = measure_unet(adapted.model, pipeline_v1_4, rows=2, on_cuda=True)
    unet.enable_gradient_checkpointing()
    model = build_denoising_model(adapted.model, DDIMScheduler())
    latents = torch.zeros((2, 4, 64, 64), device="meta")
    prompt = torch.zeros((2, 77, 768), device="meta")

    def run() -> Any:
        return model(mean=latents, deviation=latents, prompt=prompt)["loss"]

    peak = measure_backward(model, run, on_cuda=True)
    assert peak < planned.kept
    assert planned.checkpointed + planned.passing / 2 <= peak * 1.1
    assert peak <= planned.checkpointed + planned.passing


def test_a_plan_is_what_a_run_trains_and_keeps(
    make_image_spec: MakeSpec, diffusion_pipeline: Path, tmp_path: Path
) -> None:
    spec = make_image_spec(diffusion_pipeline, train={"steps": 1}, method={"r": 4})
    plan = plan_task(spec)
    prepare_data(resolve_task(spec), tmp_path / "data")
    summary = finetune(
        resolve_task(spec), tmp_path / "data", tmp_path / "candidate", checkpoints=tmp_path / "checkpoints"
    )
    assert plan.parameters == summary.parameters
    assert plan.adapter_bytes == (tmp_path / "candidate" / "adapter" / WEIGHTS_NAME).stat().st_size
    assert (plan.rows, plan.side, plan.tokens) == (2, 32, 24)
    assert not any("QLoRA" in advice.change for advice in plan.advice)

    read = read_pipeline(spec.base)
    planned = measure_unet(adapt_unet(read, METHODS["lora"]({"r": 4})).model, read, rows=2, on_cuda=False)
    unet = load_diffusers_model("UNet2DConditionModel", diffusion_pipeline / "unet")
    adapted = METHODS["lora"]({"r": 4}).adapt(unet, frozenset())
    measured = measure_unet(adapted, read, rows=2, on_cuda=False)
    assert planned.layers == measured.layers > 0
    assert planned.kept == pytest.approx(measured.kept, rel=0.02)


def test_the_command_tells_the_size_of_images(
    make_image_spec: MakeSpec, diffusion_pipeline: Path, tmp_path: Path
) -> None:
    document = make_image_spec(diffusion_pipeline).model_dump(mode="json", exclude_defaults=True)
    (tmp_path / "dog.yaml").write_text(json.dumps(document), "utf-8")
    result = CliRunner().invoke(plan_files, [str(tmp_path / "dog.yaml")], catch_exceptions=False)
    assert "2 images of 32x32 pixels" in result.stdout
    (planned,) = json.loads(
        CliRunner().invoke(plan_files, [str(tmp_path / "dog.yaml"), "--json"], catch_exceptions=False).stdout
    )
    assert planned["side"] == 32
    assert planned["faults"] == []


def test_what_will_not_fit_is_refused(make_image_spec: MakeSpec, diffusion_pipeline: Path) -> None:
    refuse_what_does_not_fit([make_image_spec(diffusion_pipeline)])
    with pytest.raises(InvalidTaskError, match="memory"):
        refuse_what_does_not_fit([make_image_spec(diffusion_pipeline, resources={"memory": "100Mi"})])
