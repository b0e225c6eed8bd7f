"""The optimiser that a task names: refused where it cannot work, and as large as the plan says."""

import importlib.util
import shutil
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from lorry_components.memory import plan_task
from lorry_components.steps.finetune.step import finetune
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.setup.optimizers import name_optimizer, prepare_optimizer, require_optimizer
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.errors import MissingExtraError, TrainingError
from lorry_registry.manifest import WEIGHTS_NAME
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
Train = Callable[..., TrainingSummary]
EIGHT_BIT = {"epochs": None, "steps": 6, "hidden_dropout": 0.1, "optimizer": "adamw-8bit"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_base: Callable[[str], Path]) -> Path:
    """Return a base with an MLP that is large enough for moments of 8 bits, and attention that is not."""
    folder = Path(shutil.copytree(tiny_base("bert"), tmp_path_factory.mktemp("bases") / "broad"))
    config = BertConfig.from_pretrained(folder, intermediate_size=256)
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def train(tiny_data: Callable[[str], Path], tmp_path: Path) -> Train:
    def run(spec: TaskSpec, name: str) -> TrainingSummary:
        return finetune(
            resolve_task(spec),
            tiny_data("regression"),
            tmp_path / name,
            checkpoints=tmp_path / f"{name}-checkpoints",
        )

    return run


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / WEIGHTS_NAME)


def check_equal(found: Path, expected: Path) -> None:
    weights = read_weights(expected)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in read_weights(found).items())


@pytest.mark.parametrize(
    ("optimizer", "device", "name"),
    [
        ("adamw", "cpu", "adamw_torch_fused"),
        ("adamw", "mps", "adamw_torch"),
        ("adamw", "cuda", "adamw_torch_fused"),
        ("adamw-8bit", "cpu", "adamw_bnb_8bit"),
        ("adamw-8bit", "cuda", "adamw_bnb_8bit"),
    ],
)
def test_optimisers_are_transformers_own(optimizer: str, device: str, name: str) -> None:
    assert name_optimizer(optimizer, device) == name


def test_what_is_not_installed_is_refused_before_anything_is_loaded(
    make_spec: MakeSpec, train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "bitsandbytes" else real(name, *rest)
    )
    require_optimizer("adamw")
    spec = make_spec(train=EIGHT_BIT)
    monkeypatch.setattr("lorry_components.task_types.text_head.load_pretrained", None)
    with pytest.raises(MissingExtraError, match="needs bitsandbytes") as caught:
        train(spec, "refused")
    assert (caught.value.where, caught.value.exit_code) == ("train.optimizer", 11)
    assert "lorry[quantization]" in caught.value.todo
    assert not (tmp_path / "refused").exists()


def test_a_library_that_does_not_suit_the_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    hollow = ModuleType("bitsandbytes")
    hollow.__spec__ = ModuleSpec("bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", hollow)
    with pytest.raises(TrainingError, match="on this machine's cpu: AttributeError") as caught:
        prepare_optimizer("adamw-8bit", "cpu")
    assert caught.value.where == "train.optimizer"
    assert "write optimizer: adamw" in caught.value.todo
    prepare_optimizer("adamw", "cpu")


def test_the_recipe_is_another_one(make_spec: MakeSpec) -> None:
    plain, eight_bit = make_spec(), make_spec(train={"optimizer": "adamw-8bit"})
    assert plain.recipe_digest == make_spec(train={"optimizer": "adamw"}).recipe_digest
    assert plain.recipe_digest != eight_bit.recipe_digest
    assert TaskSpec.model_validate(eight_bit.model_dump(mode="json")) == eight_bit


# Where bitsandbytes is installed


@pytest.fixture
def bitsandbytes() -> Any:
    return pytest.importorskip(
        "bitsandbytes", reason="bitsandbytes is not installed: pip install lorry[quantization]"
    )


@pytest.mark.usefixtures("bitsandbytes")
@pytest.mark.parametrize(
    ("method", "has_eight_bits"),
    # Biases are small, and soft tokens are an embedding.
    [("full", True), ("bitfit", False), ({"name": "prompt-tuning", "tokens": 32}, False)],
    ids=["full", "bitfit", "prompt-tuning"],
)
def test_the_moments_are_as_large_as_planned(
    make_spec: MakeSpec, train: Train, base: Path, tmp_path: Path, method: Any, has_eight_bits: bool
) -> None:
    spec = make_spec(method=method, base=str(base), train=EIGHT_BIT)
    train(spec, "run")
    newest = tmp_path / "run-checkpoints" / "checkpoint-6"
    state = torch.load(newest / "optimizer.pt", weights_only=True)["state"]
    moments = [
        tensor
        for entry in state.values()
        for name, tensor in entry["__bnb_optimizer_quant_state__"].items()
        if name.startswith(("state", "absmax"))
    ]
    (planned,) = (part.high for part in plan_task(spec).training.parts if part.name == "optimiser")
    assert planned == sum(tensor.nbytes for tensor in moments)
    assert any(tensor.dtype == torch.uint8 for tensor in moments) == has_eight_bits


@pytest.mark.usefixtures("bitsandbytes")
def test_it_learns_what_the_plain_one_learns(
    make_spec: MakeSpec, train: Train, base: Path, tmp_path: Path
) -> None:
    fields = EIGHT_BIT | {"steps": 30, "learning_rate": 1e-3, "hidden_dropout": 0.0}
    losses = [
        train(make_spec(method="full", base=str(base), train=fields | {"optimizer": name}), name).loss
        for name in ("adamw", "adamw-8bit")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.2)
    plain, eight_bit = read_weights(tmp_path / "adamw"), read_weights(tmp_path / "adamw-8bit")
    matrices = [name for name in plain if name.endswith("intermediate.dense.weight")]
    assert matrices
    for name in matrices:
        assert not torch.equal(plain[name], eight_bit[name])
        np.testing.assert_allclose(plain[name], eight_bit[name], atol=0.02)


@pytest.mark.usefixtures("bitsandbytes")
@pytest.mark.parametrize(
    "method",
    ["full", {"name": "lora", "r": 16, "targets": ["intermediate.dense", "query"], "lora_plus_ratio": 8}],
    ids=["full", "lora-plus"],
)
def test_a_resumed_training_ends_with_the_same_weights(
    make_spec: MakeSpec, train: Train, base: Path, tmp_path: Path, method: Any
) -> None:
    spec = make_spec(method=method, base=str(base), train=EIGHT_BIT)
    train(spec, "whole")
    kept = shutil.copytree(tmp_path / "whole-checkpoints", tmp_path / "broken-checkpoints")
    shutil.rmtree(kept / "checkpoint-6")
    assert train(spec, "broken").resumed_from == 5
    check_equal(tmp_path / "broken", tmp_path / "whole")


def test_a_training_is_the_same_after_another_one(
    make_spec: MakeSpec, train: Train, base: Path, tmp_path: Path, bitsandbytes: Any
) -> None:
    # As in a process of its own, whatever ran before in this one.
    bitsandbytes.optim.GlobalOptimManager.get_instance().initialize()
    # The other has embeddings where this one has matrices.
    lora = {"name": "lora", "r": 16, "targets": ["intermediate.dense"]}
    spec = make_spec(method=lora, base=str(base), train=EIGHT_BIT)
    train(spec, "first")
    train(make_spec(method="full", base=str(base), train=EIGHT_BIT), "other")
    train(spec, "second")
    check_equal(tmp_path / "second", tmp_path / "first")
