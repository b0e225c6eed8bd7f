"""QLoRA beside a base in four bits, where bitsandbytes is installed: it computes on processors, too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lorry_components.inference import assemble_adapter
from lorry_components.inference.predictor import Predictor
from lorry_components.models.bases import resolve_base
from lorry_components.steps.finetune.step import finetune
from lorry_components.tasks.definition import find_method, find_task_type
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.training_summary import ADAPTER_FOLDER
from lorry_registry.manifest import WEIGHTS_NAME

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install lorry[quantization]")

TEXTS = ["the film was good", "so dull and very boring", "a lovely story but the cast was weak"]


def load(trained: Any) -> Predictor:
    return assemble_adapter(
        trained.candidate / ADAPTER_FOLDER,
        base=resolve_base(trained.spec.base),
        task_type=find_task_type(trained.spec),
        method=find_method(trained.spec),
        labels=trained.summary.labels,
    )


def test_it_trains_over_several_epochs_and_is_scored(trained: Callable[..., Any]) -> None:
    # A validation without gradients between two epochs must not lay the weights out anew.
    found = trained("classification", "qlora")
    assert found.summary.steps > 6
    assert found.report.evaluation.primary == "accuracy"
    tensors = load_file(found.candidate / ADAPTER_FOLDER / WEIGHTS_NAME)
    assert all("lora_" in name or "classifier" in name or "pooler" in name for name in tensors)
    assert any("lora_B" in name and tensor.abs().max() > 0 for name, tensor in tensors.items())


def test_the_base_is_held_in_four_bits(trained: Callable[..., Any]) -> None:
    model: Any = load(trained("classification", "qlora")).adapted.model
    task_types = {
        name: type(module).__name__
        for name, module in model.named_modules()
        if name.endswith(("query.base_layer", "intermediate.dense", "classifier.modules_to_save.default"))
    }
    assert {name for name, task_type in task_types.items() if task_type == "Linear4bit"} == {
        name for name in task_types if "classifier" not in name
    }
    packed = next(
        module.weight for name, module in model.named_modules() if name.endswith("intermediate.dense")
    )
    assert packed.dtype == torch.uint8


def test_it_comes_back_bit_for_bit(trained: Callable[..., Any]) -> None:
    found = trained("classification", "qlora")
    rows = [{"text": text} for text in TEXTS]
    first = load(found).compute_outputs(rows)
    np.testing.assert_array_equal(load(found).compute_outputs(rows), first)
    assert np.ptp(first) > 0


def test_the_same_seed_gives_the_same_bytes(trained: Callable[..., Any], tmp_path: Path) -> None:
    found = trained("classification", "qlora")
    finetune(resolve_task(found.spec), found.data, tmp_path / "again", checkpoints=tmp_path / "checkpoints")
    again, first = (
        folder / ADAPTER_FOLDER / WEIGHTS_NAME for folder in (tmp_path / "again", found.candidate)
    )
    assert again.read_bytes() == first.read_bytes()
