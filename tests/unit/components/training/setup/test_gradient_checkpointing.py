"""Layers that are computed again in the backward pass: the same training, with less kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lorry_components.memory import plan_task
from lorry_components.steps.finetune.step import finetune
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.errors import InvalidTaskError
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
Train = Callable[..., int]


@pytest.fixture
def train(tiny_data: Callable[[str], Path], tmp_path: Path) -> Train:
    def run(spec: TaskSpec, name: str) -> int:
        kept = 0

        def note(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        folder = tmp_path / name
        folder.mkdir()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            finetune(
                resolve_task(spec),
                tiny_data("regression"),
                folder,
                checkpoints=tmp_path / f"{name}-checkpoints",
            )
        return kept

    return run


@pytest.mark.parametrize(
    "method", ["full", "lora", "bitfit", "adapter-h", "adapter-p", "adapter-l", "prelayer", "p-tuning"]
)
def test_the_same_is_learned_with_less_kept(
    make_spec: MakeSpec, train: Train, tmp_path: Path, method: str
) -> None:
    rate = 1e-3 if method == "full" else 1e-2
    kept, weights = [], []
    for checkpointed in (False, True):
        fields: dict[str, Any] = {"epochs": None, "steps": 6, "hidden_dropout": 0.1, "learning_rate": rate}
        name = f"{method}-{checkpointed}"
        fields |= {"gradient_checkpointing": checkpointed}
        # A head that reads one position leaves the last of two layers little to keep.
        kept.append(train(make_spec(method=method, head={"pooling": "mean"}, train=fields), name))
        weights.append(load_file(tmp_path / name / "adapter" / "adapter_model.safetensors"))
    for name, tensor in weights[0].items():
        np.testing.assert_allclose(weights[1][name], tensor, atol=1e-5, err_msg=name)
    assert kept[1] < 0.9 * kept[0]


def test_a_method_that_would_be_dropped_is_refused(make_spec: MakeSpec, train: Train) -> None:
    spec = make_spec(method="p-tuning-v2", train={"gradient_checkpointing": True})
    with pytest.raises(InvalidTaskError) as caught:
        train(spec, "refused")
    assert [fault.where for fault in caught.value.faults] == ["train.gradient_checkpointing"]


def test_the_plan_takes_note_of_it(make_spec: MakeSpec) -> None:
    def list_parts(*, checkpointed: bool) -> dict[str, int]:
        spec = make_spec(train={"gradient_checkpointing": checkpointed})
        return {part.name: part.high for part in plan_task(spec).training.parts}

    assert list_parts(checkpointed=True)["activations"] < list_parts(checkpointed=False)["activations"]
