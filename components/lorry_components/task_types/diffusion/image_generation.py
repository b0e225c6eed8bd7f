"""Image generation: an image for a prompt, of something that a few photographs show.

As in DreamBooth (Ruiz et al. 2023, https://arxiv.org/abs/2208.12242), a rare word in the prompts ("sks") is
taught to mean what the images show; with LoRA on the UNet's attention instead of the whole UNet.
"""

import base64
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from lorry_components.data.rows import IMAGE, Label, Row
from lorry_components.metrics.base import Prediction, Target, list_right
from lorry_components.metrics.denoising import score_denoising, score_noise_error
from lorry_components.task_types.base import Outputs, Report
from lorry_components.task_types.diffusion.base import DiffusionTaskType
from lorry_components.task_types.diffusion.image_arrays import arrange_images, decode_image, encode_image
from lorry_components.task_types.diffusion.latent_diffusion import DiffusionParts, draw_image, score_noise
from lorry_registry.errors import StoreError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import nn

_PROBED_NUMBERS = 8
_SHEET_COLUMNS = 4
_SHEET_SIDE = 256


class ImageGeneration(DiffusionTaskType):
    """An image for a prompt, by a UNet that predicts the noise in images."""

    name = "image-generation"
    summary = "an image for a prompt"
    metrics = {"denoising": score_denoising, "loss": score_noise_error}
    primary = "denoising"
    prediction_fields = {"image": "string", "seed": "long"}
    error_metrics = frozenset({"loss"})

    # Prediction

    def compute_outputs(
        self,
        model: "nn.Module",
        reader: DiffusionParts,
        rows: Sequence[Row],
        labels: Sequence[str] | None,
        report: Report,
    ) -> Outputs:
        """Return some numbers of the noise that the UNet predicts for each prompt, half way."""
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
                noise = model(latents, time, encoder_hidden_states=prompt).sample.float().flatten().cpu()
            chosen = torch.linspace(0, len(noise) - 1, _PROBED_NUMBERS).long()
            outputs[number] = noise[chosen].numpy()
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
        gives two images, and the same rows give the same images. For a row that has an image itself, as rows
        of the test part do, it is also measured how well the noise in that is predicted.
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

    def store_prediction(self, prediction: Prediction, folder: Path, name: str) -> Prediction:
        """Write the image into a folder, as NAME-0.png or the next number that is free."""
        content = base64.b64decode(prediction["image"])
        rest = {field: value for field, value in prediction.items() if field != "image"}
        for number in itertools.count():
            path = folder / f"{name}-{number}.png"
            try:
                with path.open("xb") as stream:
                    stream.write(content)
            except FileExistsError:
                continue
            except OSError as error:
                raise StoreError(
                    f"the image cannot be written: {error.strerror or error}",
                    where=str(path.absolute()),
                    todo="go to a folder that this user may write in, with room, and run again",
                ) from error
            return {"path": str(path), **rest}
        raise AssertionError("counting does not end")

    # Evaluation

    def group_targets(self, rows: Sequence[Row], targets: Sequence[Label]) -> tuple[list[Row], list[Target]]:
        """Return with each file name the image itself."""
        pairs = zip(targets, rows, strict=True)
        return list(rows), [(label, row[IMAGE]) for label, row in pairs]

    def reduce_to_base(self) -> Self:
        """Return the task type that draws in one step: how well noise is predicted takes no image."""
        drawing = self.form.generate.model_copy(update={"steps": 1})
        return type(self)(replace(self.form, generate=drawing))

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
