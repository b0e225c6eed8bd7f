"""The layers below the first trained one, computed once: the same training, but for dropout in them."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lorry_components.steps.finetune.step import finetune
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.kernels.activation_cache import StateFile
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.errors import StoreError, TrainingError
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
TARGETS = {"bert": ["query"], "roberta": ["query"], "distilbert": ["q_lin"], "gpt2": ["c_attn"]}


@pytest.fixture
def train(tiny_data: Callable[[str], Path], tmp_path: Path) -> Callable[..., TrainingSummary]:
    def run(spec: TaskSpec, name: str) -> TrainingSummary:
        (tmp_path / name).mkdir(exist_ok=True)
        return finetune(
            resolve_task(spec),
            tiny_data("regression"),
            tmp_path / name,
            checkpoints=tmp_path / f"{name}-checkpoints",
        )

    return run


def write(make_spec: MakeSpec, style: str, method: dict[str, Any] | None = None, **train: Any) -> TaskSpec:
    lora = {"name": "lora", "r": 4, "targets": TARGETS[style], "layers": 1}
    return make_spec(base=style, method=method or lora, train={"hidden_dropout": 0.0, **train})


@pytest.mark.parametrize("style", sorted(TARGETS))
def test_the_same_is_learned_from_kept_outputs(
    make_spec: MakeSpec, train: Callable[..., TrainingSummary], tmp_path: Path, style: str
) -> None:
    weights = []
    for cached in (False, True):
        train(write(make_spec, style, cache_frozen_layers=cached), f"run-{cached}")
        weights.append(load_file(tmp_path / f"run-{cached}/adapter/adapter_model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        np.testing.assert_allclose(weights[1][name], tensor, atol=2e-4, err_msg=name)
    assert not list((tmp_path / "run-True-checkpoints").glob("frozen-*")), "what was kept is not removed"


def test_the_frozen_layers_are_run_once(
    make_spec: MakeSpec, train: Callable[..., TrainingSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.bert.modeling_bert import BertSelfAttention

    calls: list[int] = []
    forward = BertSelfAttention.forward

    def count(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(BertSelfAttention, "forward", count)
    counts = []
    for cached in (False, True):
        calls.clear()
        train(write(make_spec, "bert", epochs=6, cache_frozen_layers=cached), f"count-{cached}")
        counts.append(len(calls))
    # Two layers; one of them is skipped in all but the look at the model and the one pass over the rows.
    assert counts[1] < 0.65 * counts[0]


def test_a_training_goes_on_from_its_checkpoint_with_kept_outputs(
    make_spec: MakeSpec,
    train: Callable[..., TrainingSummary],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lorry_components.training import trainer as module

    spec = write(make_spec, "bert", epochs=3, cache_frozen_layers=True)
    train(spec, "whole")
    step = module.AdapterTrainer.training_step
    seen: list[int] = []

    def interrupt(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(1)
        if len(seen) == 9:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module.AdapterTrainer, "training_step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(spec, "broken")
    assert train(spec, "broken").resumed_from > 0
    files = [tmp_path / name / "adapter/adapter_model.safetensors" for name in ("whole", "broken")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    "method",
    [
        {"name": "full"},
        {"name": "lora", "targets": ["query"]},
        {"name": "p-tuning", "tokens": 4},
        {"name": "p-tuning-v2", "tokens": 4},
        {"name": "bitfit"},
    ],
    ids=lambda method: method["name"],
)
def test_a_method_that_trains_the_first_layer_is_refused(
    make_spec: MakeSpec, train: Callable[..., TrainingSummary], method: dict[str, Any]
) -> None:
    with pytest.raises(TrainingError) as caught:
        train(write(make_spec, "bert", method, cache_frozen_layers=True), "refused")
    assert caught.value.where == "train.cache_frozen_layers"


def test_ft_top_is_served_as_well(
    make_spec: MakeSpec, train: Callable[..., TrainingSummary], tmp_path: Path
) -> None:
    method = {"name": "ft-top", "layers": 1}
    weights = []
    for cached in (False, True):
        train(
            write(make_spec, "bert", method, learning_rate=1e-3, cache_frozen_layers=cached), f"top-{cached}"
        )
        weights.append(load_file(tmp_path / f"top-{cached}/adapter/adapter_model.safetensors"))
    for name, tensor in weights[0].items():
        np.testing.assert_allclose(weights[1][name], tensor, atol=2e-4, err_msg=name)


def test_states_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    states = StateFile(tmp_path / "states", [2, 1, 3])
    rows = [
        torch.arange(length * 4, dtype=torch.bfloat16).view(length, 4) + 100 * length for length in (2, 1, 3)
    ]
    for number in (2, 0, 1):
        states.write(number, rows[number])
    assert torch.equal(states.read([1, 2, 0]), torch.cat([rows[1], rows[2], rows[0]]))


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(StoreError, match="frozen layers take"):
        StateFile(tmp_path / "states", [2]).write(0, torch.zeros(2, 4))
