"""Image generation: an image for a prompt, of something that a few photographs show.

As in DreamBooth (Ruiz et al. 2023, https://arxiv.org/abs/2208.12242), a rare word in the prompts ("sks") is
taught to mean what the images show; with LoRA on the UNet's attention instead of the whole UNet.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lorry_components.task_types.base import (
    IMAGE,
    Features,
    Label,
    Outputs,
    Prediction,
    Report,
    Row,
    Scorer,
    Target,
    TaskType,
    list_right,
)
from lorry_components.task_types.diffusion.image_arrays import arrange_images, decode_image, encode_image
from lorry_components.task_types.diffusion.latent_diffusion import (
    DiffusionParts,
    build_denoising_model,
    draw_image,
    load_diffusers_model,
    read_part,
    require_diffusers,
    score_noise,
)
from lorry_registry.errors import BaseModelError, Fault, InvalidDataError
from lorry_registry.task_sections import TaskSections
from lorry_registry.task_spec import DRAWING_FIELDS, DataSpec, GenerateSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import nn

_INDEX = "model_index.json"
_METHODS = ("full", "lora")
_TEXT_FIELDS = ("hidden_dropout", "attention_dropout", "cache_frozen_layers", "offload", "packing")
_CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
_PROBED_NUMBERS = 8
# An image that has to be blown up by more teaches the UNet blur.
_MOST_ENLARGED = 2
_LISTED = 20
_SHEET_COLUMNS = 4
_SHEET_SIDE = 256


def _score_loss(_targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Score the mean squared error in telling noise: what training makes less."""
    error = np.asarray([prediction["noise_error"] for prediction in predictions])
    return lambda draw: float(error[draw].mean())


def _score_denoising(_targets: Sequence[Target], predictions: Sequence[Prediction]) -> Scorer:
    """Score the share of the noise that is told: 1 is all of it, 0 no better than predicting zeros."""
    error = np.asarray([prediction["noise_error"] for prediction in predictions])
    power = np.asarray([prediction["noise_power"] for prediction in predictions])
    return lambda draw: 1.0 - float(error[draw].sum() / power[draw].sum())


class ImageGeneration(TaskType):
    """An image for a prompt, by a UNet that tells noise from images."""

    name = "image-generation"
    summary = "an image for a prompt"
    model_class = "UNet2DConditionModel"
    metrics = {
        "denoising": _score_denoising,
        "loss": _score_loss,
    }
    primary = "denoising"
    label_form = "text"
    peft_task_type = None
    error_metrics = frozenset({"loss"})
    target_names = ("mean",)
    reads_images = True
    libraries = ("diffusers",)

    @classmethod
    def check_sections(cls, sections: TaskSections) -> Iterator[Fault]:
        """Check all sections, and that no field of training is for models of text."""
        yield from super().check_sections(sections)
        for name in _TEXT_FIELDS if sections.train is not None else ():
            if getattr(sections.train, name):
                yield Fault(f"train.{name}", "is for models of text", "leave it out")

    @classmethod
    def check_data(cls, data: DataSpec) -> Iterator[Fault]:
        """Check that the images are on this machine, and that rows have one prompt and no template."""
        yield from super().check_data(data)
        if not data.is_local:
            yield Fault(
                "data.source", "must be a folder on this machine: images are read from beside their table"
            )
        if data.columns.text_pair is not None:
            yield Fault("data.columns.text_pair", "is not used: an image has one prompt", "leave it out")

    @classmethod
    def check_generate(cls, generate: GenerateSpec) -> Iterator[Fault]:
        """Check that no field is for texts."""
        for name in sorted(generate.model_fields_set.difference(DRAWING_FIELDS)):
            yield Fault(f"generate.{name}", f"is for texts, and not for {cls.name}", "leave it out")

    @classmethod
    def check_method(cls, name: str) -> Iterator[Fault]:
        """Check that the method adapts a UNet."""
        if name not in _METHODS:
            yield Fault(
                "method.name",
                f"{name} is for models of text, and {cls.name} trains a UNet",
                f"choose {', '.join(_METHODS)}",
            )

    def check_folder(self, folder: Path) -> Iterator[Fault]:
        """Check that the parts are those of Stable Diffusion 1 or 2, and belong together."""
        require_diffusers(str(folder))
        if not (folder / _INDEX).is_file():
            yield Fault("base.model", f"has no {_INDEX}: {self.name} needs a pipeline that diffusers saved")
            return
        index = read_part(folder, "", _INDEX)
        for part, wanted in _CLASSES.items():
            found = index.get(part)
            if not isinstance(found, list) or found[-1:] != [wanted]:
                yield Fault("base.model", f"its {part} is {found}, and {self.name} knows {wanted} only")
                return
        if extra := sorted(
            part for part in index if part.startswith("text_encoder_") and index[part] != [None, None]
        ):
            yield Fault(
                "base.model",
                f"has a second text encoder ({extra[0]}), as Stable Diffusion XL",
                "choose Stable Diffusion 1 or 2",
            )
            return
        yield from self._check_parts(folder)

    def _check_parts(self, folder: Path) -> Iterator[Fault]:
        unet, vae = read_part(folder, "unet", "config.json"), read_part(folder, "vae", "config.json")
        scheduler = read_part(folder, "scheduler", "scheduler_config.json")
        text = read_part(folder, "text_encoder", "config.json")
        if unet.get("in_channels") != vae.get("latent_channels"):
            yield Fault(
                "base.model",
                f"its unet takes {unet.get('in_channels')} channels and its vae makes "
                f"{vae.get('latent_channels')}: is it for filling in holes?",
            )
        if unet.get("cross_attention_dim") != text.get("hidden_size"):
            yield Fault(
                "base.model",
                f"its unet reads states of width {unet.get('cross_attention_dim')}, and its text_encoder "
                f"makes {text.get('hidden_size')}",
            )
        if not isinstance(unet.get("sample_size"), int):
            yield Fault("base.model", "its unet names no sample_size, so the size of its images is not known")
        if scheduler.get("prediction_type", "epsilon") not in ("epsilon", "v_prediction"):
            yield Fault("base.model", f"its scheduler has prediction_type {scheduler['prediction_type']!r}")
        times = scheduler.get("num_train_timesteps", 1000)
        if self.form.generate.steps >= times:
            yield Fault("generate.steps", f"must be fewer than the {times} times of the base's noise")

    def parse_label(self, raw: object) -> str:
        """Accept the name of a file; whether it is there and an image is checked where it is read."""
        if not isinstance(raw, str) or not raw.strip():
            raise ValueError("is not the name of an image file")
        return raw

    # Training

    def load_reader(self, folder: Path) -> DiffusionParts:
        """Load the frozen parts around the UNet."""
        return DiffusionParts(folder)

    def load_model(
        self, folder: Path, labels: Sequence[str] | None, **options: Any
    ) -> "tuple[Any, frozenset[str]]":
        """Load the UNet of a pipeline."""
        if not (folder / _INDEX).is_file():
            raise BaseModelError(
                f"there is no {_INDEX}", where=str(folder), todo="name a pipeline that diffusers saved"
            )
        return load_diffusers_model(self.model_class, folder / "unet"), frozenset()

    def check_rows(self, reader: DiffusionParts, rows: Sequence[Row]) -> None:
        """Refuse images that are much smaller than those the base draws."""
        least = reader.side // _MOST_ENLARGED
        small = [shape for row in rows if min(shape := decode_image(row[IMAGE]).shape[:2]) < least]
        if small:
            faults = [Fault("image", f"is {width}x{height} pixels") for height, width in small[:_LISTED]]
            raise InvalidDataError(
                "the images",
                faults,
                todo=f"the base draws {reader.side}x{reader.side} pixels: give images whose sides have "
                f"{least} or more",
                total=len(small),
            )

    def encode_examples(
        self,
        reader: DiffusionParts,
        rows: Sequence[Row],
        targets: Sequence[Label],
        labels: Sequence[str] | None,
    ) -> list[Features]:
        """Compute what is frozen, once: latents of the images, and states of the prompts."""
        import torch

        reader.move(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        features: list[Features] = []
        for row in rows:
            mean, deviation = reader.encode_pixels(decode_image(row[IMAGE], reader.side))
            prompt = reader.encode_prompts([row["text"]], self.form.max_length)[0]
            features.append({"mean": mean.cpu(), "deviation": deviation.cpu(), "prompt": prompt.cpu()})
        # The rest of the memory is for training.
        reader.move(torch.device("cpu"))
        return features

    def build_collator(self, reader: DiffusionParts) -> Callable[[list[Features]], Any]:
        """Stack the rows: all are of one size."""
        import torch

        def stack(features: list[Features]) -> dict[str, torch.Tensor]:
            return {name: torch.stack([row[name] for row in features]) for name in features[0]}

        return stack

    def prepare_training(self, model: "nn.Module", reader: DiffusionParts) -> "nn.Module":
        """Return a model that adds noise and measures how well it is told."""
        return build_denoising_model(model, reader.build_scheduler())

    # Prediction

    def compute_outputs(
        self,
        model: "nn.Module",
        reader: DiffusionParts,
        rows: Sequence[Row],
        labels: Sequence[str] | None,
        report: Report,
    ) -> Outputs:
        """Return some numbers of what the UNet tells for each prompt at fixed latents half way."""
        import torch

        device = next(model.parameters()).device
        reader.move(device)
        latents = reader.draw_noise(0)
        time = int(reader.build_scheduler().config.num_train_timesteps) // 2
        outputs = np.zeros((len(rows), _PROBED_NUMBERS), dtype=np.float32)
        for number, row in enumerate(rows):
            prompt = reader.encode_prompts([row["text"]], self.form.max_length)
            # On GPUs convolutions round to TF32 otherwise, and would not agree with other devices.
            with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                told = model(latents, time, encoder_hidden_states=prompt).sample.float().flatten().cpu()
            chosen = torch.linspace(0, len(told) - 1, _PROBED_NUMBERS).long()
            outputs[number] = told[chosen].numpy()
            report(number + 1)
        return outputs

    def predict(
        self,
        model: "nn.Module",
        reader: DiffusionParts,
        rows: Sequence[Row],
        labels: Sequence[str] | None,
        report: Report,
    ) -> list[Prediction]:
        """Draw an image a row, as a PNG in base64.

        The noise that an image begins with follows from the seed and the row's place: one prompt given twice
        gives two images, and the same rows give the same images. Of a row that has an image itself, as those
        of the test part, it is measured too how well noise is told from that.
        """
        reader.move(next(model.parameters()).device)
        drawing = self.form.generate
        predictions: list[Prediction] = []
        for number, row in enumerate(rows):
            prompts = reader.encode_prompts(["", row["text"]], self.form.max_length)
            seed = (drawing.seed + number) % 2**32
            drawn = draw_image(
                model, reader, prompts, seed=seed, steps=drawing.steps, guidance=drawing.guidance
            )
            prediction: Prediction = {"image": encode_image(drawn), "seed": seed}
            if IMAGE in row:
                latents, _ = reader.encode_pixels(decode_image(row[IMAGE], reader.side))
                score = score_noise(model, reader, latents, prompts[1:])
                prediction |= {"noise_error": score.error, "noise_power": score.power}
            predictions.append(prediction)
            report(number + 1)
        return predictions

    def describe_prediction(self, prediction: Prediction) -> str:
        """Return where the image was written, if it was."""
        return str(prediction.get("path", "an image"))

    # Evaluation

    def group_targets(self, rows: Sequence[Row], targets: Sequence[Label]) -> tuple[list[Row], list[Target]]:
        """Return with each file name the image itself."""
        pairs = zip(targets, rows, strict=True)
        return list(rows), [(label, row[IMAGE]) for label, row in pairs]

    def record_target(self, target: Target) -> Target:
        """Return the file name alone."""
        return list_right(target)[0]

    def plot_predictions(
        self, axes: "Axes", targets: Sequence[Target], predictions: Sequence[Prediction]
    ) -> None:
        """Lay up to four of the real images above those that were drawn for their prompts."""
        shown = range(min(_SHEET_COLUMNS, len(predictions)))
        real = [decode_image(str(_find_image(targets[i])), _SHEET_SIDE) for i in shown]
        drawn = [decode_image(predictions[i]["image"], _SHEET_SIDE) for i in shown]
        sheet = arrange_images([real, drawn])
        axes.imshow(sheet)
        axes.set_xticks([])
        axes.set_yticks([_SHEET_SIDE / 2, _SHEET_SIDE * 3 / 2], ["real", "drawn"], rotation=90, va="center")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)


def _find_image(target: Target) -> Label:
    if not isinstance(target, tuple):
        raise TypeError("a target of images is a file name with its image")
    return target[1]
