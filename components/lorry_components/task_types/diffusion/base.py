"""The family of task types over the UNet of a pipeline of diffusers', Stable Diffusion 1 or 2."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lorry_components.data.image_files import IMAGE_ENDINGS, list_images, read_image
from lorry_components.data.rows import IMAGE, DataForm, Label, Row
from lorry_components.models.bases import PIPELINE_INDEX
from lorry_components.models.diffusers_models import (
    build_diffusers_skeleton,
    load_diffusers_model,
    read_part,
    require_diffusers,
)
from lorry_components.task_types.adapting_method import AdaptingMethod
from lorry_components.task_types.base import Answer, Features, TaskType
from lorry_components.task_types.diffusion.image_arrays import decode_image
from lorry_components.task_types.diffusion.latent_diffusion import DiffusionParts, build_denoising_model
from lorry_components.task_types.training_form import TrainingForm
from lorry_registry.errors import BaseModelError, Fault, InvalidDataError
from lorry_registry.tasks.input_specs import DataSpec
from lorry_registry.tasks.task_sections import TaskSections
from lorry_registry.tasks.task_spec import DRAWING_FIELDS, GenerateSpec, TrainSpec

if TYPE_CHECKING:
    from torch import nn

    from lorry_components.task_types.text_task import TextTaskType

_CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
_METHODS = ("full", "lora")
# What only models of text have or do.
_TEXT_OPTIONS = ("hidden_dropout", "attention_dropout", "cache_frozen_layers", "offload", "packing")
# An image that has to be enlarged by more teaches the UNet blur.
_MOST_ENLARGED = 2
_LISTED = 20


class DiffusionTaskType(TaskType):
    """A task type that trains the UNet of a pipeline on images, each a file that a row's label names.

    Attributes:
        model_class: The class of diffusers' that is trained.
    """

    model_class: ClassVar[str] = "UNet2DConditionModel"
    data_form = DataForm("text")
    named_file_endings = IMAGE_ENDINGS
    training_form = TrainingForm(label_names=("mean",))
    peft_task_type = None
    libraries = ("diffusers",)

    def match_family(
        self,
        *,
        text: "Callable[[TextTaskType], Answer]",
        diffusion: "Callable[[DiffusionTaskType], Answer]",
    ) -> Answer:
        """Call ``diffusion``."""
        return diffusion(self)

    # The task file

    @classmethod
    def check_sections(cls, sections: TaskSections) -> Iterator[Fault]:
        """Check all sections, and that no field of training is for models of text."""
        yield from super().check_sections(sections)
        for name in _TEXT_OPTIONS if sections.train is not None else ():
            if getattr(sections.train, name):
                yield Fault(f"train.{name}", "is for models of text", "leave it out")

    @classmethod
    def check_data(cls, data: DataSpec) -> Iterator[Fault]:
        """Check that images can lie beside the table, and that rows have one prompt and no template."""
        yield from super().check_data(data)
        if data.source.startswith("hub:"):
            yield Fault(
                "data.source",
                "names a data set of a hub, and images are read from beside their table",
                "save it as a folder on this machine or in S3",
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

    # The base

    def check_on_base(self, folder: Path, train: TrainSpec, method: AdaptingMethod) -> Iterator[Fault]:
        """Check the pipeline, and what the method makes of its UNet."""
        faults = list(self.check_folder(folder))
        yield from faults
        if not faults:
            # A folder with faults may hold no UNet to ask.
            config = read_part(folder, "unet", "config.json")
            yield from method.check_model(build_diffusers_skeleton(self.model_class, config))

    def check_folder(self, folder: Path) -> Iterator[Fault]:
        """Check that the parts are those of Stable Diffusion 1 or 2, and belong together."""
        require_diffusers(str(folder))
        if not (folder / PIPELINE_INDEX).is_file():
            yield Fault(
                "base.model", f"has no {PIPELINE_INDEX}: {self.name} needs a pipeline that diffusers saved"
            )
            return
        index = read_part(folder, "", PIPELINE_INDEX)
        for part, wanted in _CLASSES.items():
            named = index.get(part)
            if not isinstance(named, list) or named[-1:] != [wanted]:
                yield Fault("base.model", f"its {part} is {named}, and {self.name} knows {wanted} only")
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
                f"{vae.get('latent_channels')}: is it for inpainting?",
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

    # The data

    def parse_label(self, raw: object) -> str:
        """Accept the name of a file; whether it is there and an image is checked where it is read."""
        if not isinstance(raw, str) or not raw.strip():
            raise ValueError("is not the name of an image file")
        return raw

    def list_named_files(self, folder: Path) -> Sequence[str]:
        """Return the names of the images in a folder and below it, sorted."""
        return list_images(folder)

    def read_named_file(self, folder: Path, label: Label) -> Mapping[str, str]:
        """Return the image that a label names.

        Raises:
            ValueError: There is no such image, or it cannot be used; the message says why.
        """
        return {IMAGE: read_image(folder, str(label))}

    # Training

    def load_reader(self, folder: Path) -> DiffusionParts:
        """Load the frozen parts around the UNet."""
        return DiffusionParts(folder)

    def load_model(
        self, folder: Path, labels: Sequence[str] | None, **options: Any
    ) -> "tuple[Any, frozenset[str]]":
        """Load the UNet of a pipeline."""
        if not (folder / PIPELINE_INDEX).is_file():
            raise BaseModelError(
                f"there is no {PIPELINE_INDEX}",
                where=str(folder),
                todo="name a pipeline that diffusers saved",
            )
        return load_diffusers_model(self.model_class, folder / "unet"), frozenset()

    def check_rows(self, reader: DiffusionParts, rows: Sequence[Row]) -> None:
        """Refuse images that are much smaller than those the base draws; prompts alone all fit."""
        least = reader.side // _MOST_ENLARGED
        images = (row[IMAGE] for row in rows if IMAGE in row)
        small = [shape for image in images if min(shape := decode_image(image).shape[:2]) < least]
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
        """Return a model that adds noise and measures how well it is predicted."""
        return build_denoising_model(model, reader.build_scheduler())
