"""What the published runs of DreamBooth take, which train a text encoder beside the UNet.

They are those of the example in PEFT's repository, by the command that its README gives: UNet and text
encoder trained together, in fp32, one image of 512x512 pixels a step and one of its class beside it (prior
preservation), attention without fused kernels. LoRA is of rank 16, on queries and values: 2,184,192 numbers,
which are the 8.8 MB that the README states for a checkpoint. Checkpointing computes the layers of the UNet
again, and none of the text encoder's.
"""

import dataclasses
from typing import Any

from lorry_components.memory.activations import Activations, measure_pass
from lorry_components.memory.architecture import AdaptedArchitecture, Architecture, adapt_architecture
from lorry_components.memory.diffusion_pipeline import ImagePipeline, measure_unet
from lorry_components.memory.estimates import Estimate, Recipe, estimate_training
from lorry_components.memory.plan import make_footprint
from lorry_components.methods import METHODS
from lorry_components.models.diffusers_models import build_diffusers_skeleton
from lorry_registry.manifest import ParameterCounts

_IMAGES = 2
_RANK = 16
_UNET_TARGETS = ["to_q", "to_v"]
_TEXT_TARGETS = ["q_proj", "v_proj"]


def measure_dreambooth(
    pipeline: ImagePipeline, method_name: str, *, is_checkpointed: bool
) -> tuple[ParameterCounts, Estimate]:
    """Count the trained parameters of both models, and estimate the peak of their training on a GPU.

    Args:
        pipeline: What is trained.
        method_name: ``full`` or ``lora``.
        is_checkpointed: Whether the UNet's layers are computed again in the backward pass.
    """
    unet = _adapt(method_name, _build_unet(pipeline), _UNET_TARGETS)
    text = _adapt(method_name, _build_text_encoder(pipeline), _TEXT_TARGETS)
    autoencoder = build_diffusers_skeleton("AutoencoderKL", pipeline.parts["vae"])
    counts = ParameterCounts(
        adapter=unet.parameters.adapter + text.parameters.adapter,
        head=0,
        total=unet.parameters.total
        + text.parameters.total
        + sum(parameter.numel() for parameter in autoencoder.parameters()),
    )
    both = dataclasses.replace(unet, parameters=counts)
    activations = _add_up(
        measure_unet(unet.model, pipeline, rows=_IMAGES, on_cuda=True), _measure_text(text.model, pipeline)
    )
    footprint = make_footprint(both, METHODS[method_name]({}), activations, _IMAGES)
    recipe = Recipe("cuda", "fp32", _IMAGES, is_checkpointed=is_checkpointed)
    return counts, estimate_training(footprint, recipe)


def _adapt(method_name: str, model: Any, targets: list[str]) -> AdaptedArchitecture:
    options = {"r": _RANK, "targets": targets} if method_name == "lora" else {}
    return adapt_architecture(METHODS[method_name](options), Architecture(model, frozenset()))


def _build_unet(pipeline: ImagePipeline) -> Any:
    from diffusers.models.attention_processor import AttnProcessor

    unet = build_diffusers_skeleton("UNet2DConditionModel", pipeline.parts["unet"])
    unet.set_attn_processor(AttnProcessor())
    return unet


def _build_text_encoder(pipeline: ImagePipeline) -> Any:
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    config: Any = CLIPTextConfig
    with torch.device("meta"):
        return CLIPTextModel(config(**pipeline.parts["text_encoder"], attn_implementation="eager"))


def _measure_text(model: Any, pipeline: ImagePipeline) -> Activations:
    import torch

    tokens = torch.zeros((_IMAGES, pipeline.positions), dtype=torch.long, device="meta")
    return measure_pass(model, lambda: model(input_ids=tokens), on_cuda=True)


def _add_up(unet: Activations, text: Activations) -> Activations:
    """Return what both keep; the text encoder keeps all, whether or not the UNet is checkpointed."""
    return dataclasses.replace(unet, kept=unet.kept + text.kept, outside=unet.outside + text.kept)
