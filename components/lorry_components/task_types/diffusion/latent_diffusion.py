"""Latent diffusion (Rombach et al. 2022, https://arxiv.org/abs/2112.10752): a UNet predicts noise in images.

What is trained is the UNet. Around it stand frozen parts: an autoencoder between pixels and latents, a text
encoder with its tokeniser, and the schedule of the noise. Here images are drawn by DDIM (Song et al. 2021,
https://arxiv.org/abs/2010.02502), for any scheduler of the pipeline: it adds no noise on its way, so that
the first noise decides the image; and with classifier-free guidance (Ho and Salimans 2022,
https://arxiv.org/abs/2207.12598).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lorry_components.models.diffusers_models import load_diffusers_model, read_part
from lorry_components.models.pretrained import load_pretrained
from lorry_components.task_types.diffusion.image_arrays import Pixels

if TYPE_CHECKING:
    import torch
    from torch import nn

# At how many times, from little noise to much, the noise in an image is predicted when it is scored.
SCORED_TIMES = 8


@dataclass(frozen=True, slots=True)
class NoiseScore:
    """How well the noise in one image was predicted.

    Attributes:
        error: The mean squared error of what the UNet predicted.
        power: The mean square of what it had to predict.
    """

    error: float
    power: float


class DiffusionParts:
    """The frozen parts around a UNet.

    Args:
        folder: A pipeline in the layout of diffusers.

    Raises:
        BaseModelError: A part is damaged.
        MissingExtraError: ``diffusers`` is not installed.

    Attributes:
        side: Width and height of its images, in pixels.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self._vae = load_diffusers_model("AutoencoderKL", folder / "vae")
        self._text_encoder: Any = load_pretrained("CLIPTextModel", folder / "text_encoder", may_miss=False)[0]
        self._tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        self._scheduler_config = read_part(folder, "scheduler", "scheduler_config.json")
        self._vae.requires_grad_(requires_grad=False)
        self._text_encoder.requires_grad_(requires_grad=False)
        unet = read_part(folder, "unet", "config.json")
        self._latent_shape = (int(unet["in_channels"]), int(unet["sample_size"]), int(unet["sample_size"]))
        self.side = self._latent_shape[1] * 2 ** (len(self._vae.config.block_out_channels) - 1)

    def move(self, device: "torch.device") -> None:
        """Move the parts to a device."""
        self._vae.to(device)
        self._text_encoder.to(device)

    def build_scheduler(self) -> Any:
        """Return a schedule of the pipeline's noise, which remembers where it is."""
        from diffusers import DDIMScheduler

        known = {name: self._scheduler_config[name] for name in _SCHEDULE if name in self._scheduler_config}
        scheduler: Any = DDIMScheduler
        # Latents are not confined to -1 ... 1, as pixels are.
        return scheduler(**known, clip_sample=False, set_alpha_to_one=False)

    def encode_prompts(self, prompts: Sequence[str], max_length: int) -> "torch.Tensor":
        """Return the text encoder's states, shape (prompts, positions, width)."""
        import torch

        positions = int(self._text_encoder.config.max_position_embeddings)
        encoded = self._tokenizer(list(prompts), truncation=True, max_length=min(max_length, positions))
        # The encoder was trained on padding up to its last position, and sees it.
        padded = self._tokenizer.pad(
            encoded, padding="max_length", max_length=positions, return_attention_mask=False
        )
        ids = torch.tensor(padded["input_ids"], device=self._text_encoder.device)
        with torch.no_grad():
            states: torch.Tensor = self._text_encoder(ids).last_hidden_state
        return states

    def encode_pixels(self, pixels: Pixels) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return the latents of an image: their mean and deviation, each of shape (channels, side, side)."""
        import torch

        device = self._vae.device
        scaled = torch.from_numpy(pixels.copy()).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1.0
        with torch.no_grad():
            latents = self._vae.encode(scaled).latent_dist
        factor = self._vae.config.scaling_factor
        return latents.mean[0] * factor, latents.std[0] * factor

    def decode_latents(self, latents: "torch.Tensor") -> Pixels:
        """Return the image of some latents, shape (1, channels, side, side)."""
        import torch

        with torch.no_grad():
            decoded = self._vae.decode(latents / self._vae.config.scaling_factor).sample[0]
        scaled = ((decoded.float() + 1.0) * 127.5).round().clamp(0, 255).permute(1, 2, 0)
        pixels: Pixels = scaled.cpu().numpy().astype(np.uint8)
        return pixels

    def draw_noise(self, seed: int, count: int = 1) -> "torch.Tensor":
        """Return the noise of a seed, the same on every device, shape (count, channels, side, side)."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        return torch.randn((count, *self._latent_shape), generator=generator).to(self._vae.device)


# The fields of a scheduler's configuration that decide how much noise there is at which time.
_SCHEDULE = (
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"),
    *("prediction_type", "steps_offset", "timestep_spacing", "rescale_betas_zero_snr"),
)


def build_denoising_model(unet: "nn.Module", scheduler: Any) -> "nn.Module":
    """Return a model that is called on latents and returns a loss.

    Args:
        unet: The adapted UNet.
        scheduler: The schedule of the noise.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class DenoisingModel(nn.Module):
        """Adds noise at a random time, and measures how well the UNet predicts it.

        In evaluation noise and times are always the same ones, so that losses differ by the weights alone.
        """

        def __init__(self) -> None:
            super().__init__()
            self.unet = unet

        def forward(
            self, mean: "torch.Tensor", deviation: "torch.Tensor", prompt: "torch.Tensor"
        ) -> "dict[str, torch.Tensor]":
            """Return the loss of a batch.

            Args:
                mean: Means of latents, shape (rows, channels, side, side).
                deviation: Their deviations.
                prompt: States of the text encoder, shape (rows, positions, width).
            """
            rows, times = len(mean), int(scheduler.config.num_train_timesteps)
            if self.training:
                latents = mean + deviation * torch.randn_like(mean)
                noise = torch.randn_like(mean)
                chosen = torch.randint(0, times, (rows,), device=mean.device)
            else:
                latents = mean
                generator = torch.Generator().manual_seed(0)
                noise = torch.randn(mean.shape, generator=generator).to(mean)
                chosen = ((torch.arange(rows, device=mean.device) + 0.5) * times / rows).long()
            predicted, wanted = predict_noise(self.unet, scheduler, latents, noise, chosen, prompt)
            return {"loss": functional.mse_loss(predicted, wanted)}

        def activation_checkpointing_enable(self, **_: Any) -> None:
            """Let the blocks of the UNet be computed again in the backward pass."""
            adapted: Any = self.unet
            bare = adapted.get_base_model() if hasattr(adapted, "get_base_model") else adapted
            bare.enable_gradient_checkpointing()

    return DenoisingModel()


def predict_noise(
    unet: "nn.Module",
    scheduler: Any,
    latents: "torch.Tensor",
    noise: "torch.Tensor",
    times: "torch.Tensor",
    prompt: "torch.Tensor",
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return what the UNet predicts of noised latents, and what it should: the noise, or its velocity."""
    noised = scheduler.add_noise(latents, noise, times)
    predicted = unet(noised, times, encoder_hidden_states=prompt).sample.float()
    if scheduler.config.prediction_type == "v_prediction":
        return predicted, scheduler.get_velocity(latents, noise, times)
    return predicted, noise


def score_noise(
    unet: "nn.Module", parts: DiffusionParts, latents: "torch.Tensor", prompt: "torch.Tensor"
) -> NoiseScore:
    """Measure how well a UNet predicts the noise in one image, at fixed times and with fixed noise.

    Args:
        unet: The UNet.
        parts: What stands around it.
        latents: Of the image, shape (channels, side, side).
        prompt: States of the text encoder, shape (1, positions, width).
    """
    import torch

    scheduler = parts.build_scheduler()
    span = int(scheduler.config.num_train_timesteps)
    times = ((torch.arange(SCORED_TIMES, device=latents.device) + 0.5) * span / SCORED_TIMES).long()
    error = power = 0.0
    # One after the other: as much memory as drawing takes, regardless of the number of times.
    for noise, time in zip(parts.draw_noise(0, SCORED_TIMES), times, strict=True):
        with torch.no_grad():
            predicted, wanted = predict_noise(unet, scheduler, latents[None], noise[None], time[None], prompt)
        error += float((predicted - wanted).square().mean()) / SCORED_TIMES
        power += float(wanted.square().mean()) / SCORED_TIMES
    return NoiseScore(error, power)


def draw_image(
    unet: "nn.Module",
    parts: DiffusionParts,
    prompts: "torch.Tensor",
    *,
    seed: int,
    steps: int,
    guidance: float,
) -> Pixels:
    """Draw one image.

    Args:
        unet: The UNet.
        parts: What stands around it.
        prompts: States of the text encoder for no prompt and for the prompt, shape (2, positions, width).
        seed: Decides the noise it begins with.
        steps: Steps from noise to image.
        guidance: How far the prompt pulls; 1: as the UNet says.
    """
    import torch

    scheduler = parts.build_scheduler()
    scheduler.set_timesteps(steps)
    latents = parts.draw_noise(seed) * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        with torch.no_grad():
            both = unet(torch.cat([latents, latents]), time, encoder_hidden_states=prompts).sample
        without, prompted = both.float().chunk(2)
        latents = scheduler.step(
            without + guidance * (prompted - without), time, latents, eta=0.0
        ).prev_sample
    return parts.decode_latents(latents)
