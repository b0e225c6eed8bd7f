"""The plan of a task that draws images: a UNet with an adapter, and the frozen parts around it.

Text encoder and autoencoder count as weights; the UNet is run on the meta device.
"""

import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lorry_components.memory.activations import Activations, measure_pass
from lorry_components.memory.architecture import AdaptedArchitecture, Architecture, adapt_architecture
from lorry_components.memory.backward import measure_backward
from lorry_components.memory.estimates import Estimate, Footprint, Part, add_runtime
from lorry_components.methods import Method
from lorry_components.models.bases import find_base_folder
from lorry_components.models.configuration import download_configuration
from lorry_components.models.diffusers_models import build_diffusers_skeleton, read_part, require_diffusers
from lorry_components.models.named_bases import read_named_document
from lorry_components.task_types.diffusion.latent_diffusion import build_denoising_model
from lorry_registry.errors import BaseModelError
from lorry_registry.tasks.input_specs import BaseSpec

if TYPE_CHECKING:
    from torch import nn

_CONFIGURATION = "config.json"
_PARTS = ("unet", "vae", "text_encoder")
# Guidance asks for the noise with the prompt and without it at once.
_GUIDED = 2
# A block of the decoder holds its input, the normalised input and its output.
_DECODED_MAPS = 3


@dataclass(frozen=True, slots=True)
class ImagePipeline:
    """A pipeline without its weights.

    Attributes:
        parts: Part -> its configuration.
        origin: Where they were read, in a few words.
    """

    parts: Mapping[str, Mapping[str, Any]]
    origin: str

    @property
    def side(self) -> int:
        """Width and height of its images, in pixels."""
        halvings = len(self.parts["vae"]["block_out_channels"]) - 1
        return int(self.parts["unet"]["sample_size"]) << halvings

    @property
    def positions(self) -> int:
        """How many tokens of a prompt it reads."""
        return int(self.parts["text_encoder"]["max_position_embeddings"])

    def count_around(self) -> int:
        """Count the parameters of the parts around the UNet."""
        import torch
        from transformers import CLIPTextConfig, CLIPTextModel

        with torch.device("meta"):
            text = CLIPTextModel(CLIPTextConfig(**self.parts["text_encoder"]))
        parts = (build_diffusers_skeleton("AutoencoderKL", self.parts["vae"]), text)
        return sum(parameter.numel() for part in parts for parameter in part.parameters())


def read_pipeline(spec: BaseSpec) -> ImagePipeline:
    """Read the configurations of a pipeline; from a hub nothing else is downloaded.

    Raises:
        BaseModelError: There is no such base, or a configuration of it cannot be read.
        MissingExtraError: ``diffusers`` is not installed.
    """
    require_diffusers(spec.model)
    if spec.is_here:
        folder, origin = find_base_folder(spec), str(find_base_folder(spec))
        parts = {part: read_part(folder, part, _CONFIGURATION) for part in _PARTS}
    elif spec.is_named:
        origin = spec.model
        parts = {part: read_named_document(spec, f"{part}/{_CONFIGURATION}") for part in _PARTS}
    else:
        origin = f"{spec.model}@{spec.revision}"
        parts = {part: download_configuration(spec, f"{part}/{_CONFIGURATION}") for part in _PARTS}
    pipeline = ImagePipeline(parts, origin)
    try:
        if pipeline.side <= 0 or pipeline.positions <= 0:
            raise ValueError("its sizes are not above 0")
    except (KeyError, TypeError, ValueError) as error:
        raise BaseModelError(
            f"its configurations do not give the size of its images: {error}",
            where=origin,
            todo="name a pipeline of Stable Diffusion 1 or 2",
        ) from error
    return pipeline


def read_known_pipeline(name: str) -> ImagePipeline:
    """Return a public pipeline by its hub id, from ``known_pipelines.json``: what decides shapes only."""
    resource = importlib.resources.files("lorry_components.models").joinpath("known_pipelines.json")
    return ImagePipeline(json.loads(resource.read_text("utf-8"))[name], f"{name}, as lorry knows it")


def adapt_unet(pipeline: ImagePipeline, method: Method) -> AdaptedArchitecture:
    """Put a method on a UNet without weights, and measure what it trains and saves.

    Raises:
        TrainingError: The method does not fit it.
    """
    unet = build_diffusers_skeleton("UNet2DConditionModel", pipeline.parts["unet"])
    adapted = adapt_architecture(method, Architecture(unet, frozenset()))
    # None of them is held in four bits: qlora is not for UNets.
    return replace(adapted, frozen_matrices=0)


def measure_unet(unet: "nn.Module", pipeline: ImagePipeline, *, rows: int, on_cuda: bool) -> Activations:
    """Run an adapted UNet forward, loss included, and add up what it keeps.

    Args:
        unet: On the meta device; on another device the figure is a measurement.
        pipeline: What it belongs to.
        rows: Images in a batch.
        on_cuda: Whether a UNet on the meta device stands for one on a GPU.
    """
    import torch
    from diffusers import DDIMScheduler

    scheduler: Any = DDIMScheduler
    device = next(unet.parameters()).device
    config = pipeline.parts["unet"]
    model = build_denoising_model(unet, scheduler())
    shape = (rows, config["in_channels"], config["sample_size"], config["sample_size"])
    latents = torch.zeros(shape, device=device)
    prompt = torch.zeros((rows, pipeline.positions, config["cross_attention_dim"]), device=device)

    def run() -> Any:
        return model(mean=latents, deviation=latents, prompt=prompt)

    kept = measure_pass(model, run, on_cuda=on_cuda)
    if device.type != "meta":
        return replace(kept, is_fixed=True)
    peak = measure_backward(model, lambda: run()["loss"], on_cuda=on_cuda)
    return replace(kept, passing=max(0, peak - kept.kept), is_fixed=True)


def estimate_drawing(pipeline: ImagePipeline, footprint: Footprint, *, around: int, device: str) -> Estimate:
    """Estimate drawing, one image after the other: low while the UNet runs, high while one is decoded."""
    weights = 4 * (footprint.frozen + footprint.trained + around)
    activations = footprint.activations
    telling = (activations.largest_layer + 2 * activations.boundary) * _GUIDED // footprint.rows
    # At full size the decoder is as wide as the second block from the image.
    widths = pipeline.parts["vae"]["block_out_channels"]
    decoding = _DECODED_MAPS * 4 * widths[min(1, len(widths) - 1)] * pipeline.side**2
    parts = [
        Part("weights", weights, weights),
        Part("activations", min(telling, decoding), max(telling, decoding)),
    ]
    return Estimate((*parts, add_runtime(device, parts)))
