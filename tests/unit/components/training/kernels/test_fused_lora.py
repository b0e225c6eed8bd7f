"""LoRA's layers, quickened: the same numbers as PEFT's, and nothing but plain layers."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModel

from lorry_components.training.kernels.fused_lora import fuse_lora


class Layers(nn.Module):
    """Two linear layers, one of them without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 10)
        self.second = nn.Linear(10, 4, bias=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Compute both."""
        outputs: torch.Tensor = self.second(torch.tanh(self.first(rows)))
        return outputs


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    settings = {"r": 2, "lora_alpha": 8, "target_modules": ["first", "second"], **options}
    model: Any = get_peft_model(Layers(), LoraConfig(**settings))  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        # PEFT's B is zero, by which the gradients of A and of the inputs would be, too.
        if ".lora_B." in name:
            nn.init.normal_(parameter)
    return model


def list_quick(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if type(module).__name__ == "FusedLinear"]


def compute(model: nn.Module, rows: torch.Tensor, *, is_mixed: bool) -> dict[str, torch.Tensor]:
    """Return the outputs, and the gradients of the inputs and of all that is trained."""
    rows = rows.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
        outputs = model(rows)
    (outputs.float() ** 2).sum().backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    assert rows.grad is not None
    return {"outputs": outputs.detach(), "rows": rows.grad, **gradients}


@pytest.mark.parametrize("is_mixed", [False, True])
def test_outputs_and_gradients_are_pefts(is_mixed: bool) -> None:
    plain = build()
    quick = copy.deepcopy(plain)
    fuse_lora(quick)
    assert len(list_quick(quick)) == 2
    rows = torch.randn(3, 5, 6)
    expected, found = (compute(model, rows, is_mixed=is_mixed) for model in (plain, quick))
    assert found.keys() == expected.keys()
    assert sum(".lora_" in name for name in found) == 4
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        # bf16 has eight binary digits.
        scale = value.abs().max().item() * (0.03 if is_mixed else 1e-6)
        torch.testing.assert_close(found[name], value, rtol=0, atol=scale, msg=name)


def test_numbers_without_gradients_are_pefts_own() -> None:
    plain = build()
    quick = copy.deepcopy(plain)
    fuse_lora(quick)
    rows = torch.randn(7, 6)
    quick.eval(), plain.eval()
    assert torch.equal(quick(rows), plain(rows))
    quick.train()
    with torch.no_grad():
        assert torch.equal(quick(rows), plain(rows))
    with quick.disable_adapter():
        assert torch.equal(
            quick(rows),
            plain.base_model.model.second.base_layer(
                torch.tanh(plain.base_model.model.first.base_layer(rows))
            ),
        )


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_dropout": 0.1}, {"lora_bias": True}])
def test_other_layers_are_left_alone(options: Mapping[str, Any]) -> None:
    # A bias of LoRA's own needs one of the layer.
    model = build(target_modules=["first"], **options)
    fuse_lora(model)
    assert not list_quick(model)


def test_transposed_weights_are_left_alone(tiny_base: Callable[[str], Path]) -> None:
    base: Any = AutoModel.from_pretrained(tiny_base("gpt2"))
    model: Any = get_peft_model(base, LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True))
    fuse_lora(model)
    assert not list_quick(model)
