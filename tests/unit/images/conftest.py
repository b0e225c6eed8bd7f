"""A tiny Stable Diffusion of random weights in the layout of diffusers, and a folder of images to learn."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from lorry_registry.task_spec import TaskSpec

SIDE = 32
PROMPT = "a photo of sks dog"
MakeSpec = Callable[..., TaskSpec]


@pytest.fixture(autouse=True, scope="session")
def quiet_libraries() -> None:
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("mlflow").setLevel(logging.ERROR)


def save_pipeline(folder: Path, **scheduler: Any) -> Path:
    """Write a pipeline as diffusers writes one, its parts one by one."""
    diffusers = pytest.importorskip(
        "diffusers", reason="diffusers is not installed: pip install lorry[images]"
    )
    torch.manual_seed(0)
    diffusers.UNet2DConditionModel(
        sample_size=SIDE // 2,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=8,
    ).save_pretrained(folder / "unet")
    diffusers.AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=SIDE,
    ).save_pretrained(folder / "vae")
    diffusers.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, **scheduler
    ).save_pretrained(folder / "scheduler")
    words = ["<|startoftext|>", "<|endoftext|>"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = {
        token: number for number, token in enumerate([*letters, *(f"{x}</w>" for x in letters), *words])
    }
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=24).save_pretrained(folder / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=24,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "safety_checker": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
    return folder


def paint(number: int, side: int = 64) -> Image.Image:
    """Return a disc on a ground, each image with another place and ground."""
    rows, columns = np.mgrid[:side, :side]
    pixels = np.full((side, side, 3), (40 + 9 * number, 120, 200 - 7 * number), dtype=np.uint8)
    centre = side * (0.35 + 0.03 * number)
    pixels[(rows - centre) ** 2 + (columns - side / 2) ** 2 < (side / 4) ** 2] = (230, 60, 30)
    return Image.fromarray(pixels)


def write_images(folder: Path, count: int = 9) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        name = f"{number}.{'jpg' if number % 2 else 'png'}"
        paint(number).save(folder / name)
        rows.append({"file_name": name, "text": PROMPT if number else "a photo of sks dog on a field"})
    (folder / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return folder


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photographs")


@pytest.fixture
def make_spec(photographs: Path) -> MakeSpec:
    """Return a function that writes a task on the images down; sections that are given are laid over it."""

    def make(base: Path | str = "./nowhere", **sections: Any) -> TaskSpec:
        document: dict[str, Any] = {
            "name": "dog",
            "kind": "image-generation",
            "base": {"model": str(base)},
            "data": {
                "source": str(photographs),
                "columns": {"text": "text", "label": "file_name"},
                "split": {"validation": 0.2, "test": 0.3},
            },
            "method": {"name": "lora", "r": 4},
            "train": {"steps": 6, "batch_size": 2, "learning_rate": 5e-3, "precision": "fp32"},
            "generate": {"steps": 4},
            "evaluate": {"resamples": 100},
        }
        for name, given in sections.items():
            former = document.get(name)
            if name == "method" and "name" in given:
                former = None
            document[name] = former | given if isinstance(former, dict) and isinstance(given, dict) else given
        return TaskSpec.model_validate(document)

    return make
