"""Dropout that draws bytes does what torch's does."""

import pytest
import torch
from torch import nn

from lorry_components.training.byte_dropout import quicken_dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.001, 0.1, 0.5, 0.999])
def test_as_many_are_dropped_and_the_mean_is_kept(probability: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(probability))
    quicken_dropout(model)
    inputs = torch.ones(1000, 1001, dtype=dtype, requires_grad=True)
    outputs = model(inputs)
    dropped = float((outputs == 0).float().mean())
    expected = min(max(round(probability * 256), 1), 255) / 256
    assert dropped == pytest.approx(expected, abs=3e-3)
    assert abs(expected - probability) < 1 / 255
    assert float(outputs.detach().float().mean()) == pytest.approx(1.0, abs=0.03)
    outputs.backward(torch.ones_like(outputs))
    assert inputs.grad is not None
    assert torch.equal(inputs.grad, outputs.detach())


def test_no_bit_of_the_bytes_is_constant() -> None:
    # Where a top bit never is set, every eighth element would be dropped twice as often.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5))
    quicken_dropout(model)
    kept = (model(torch.ones(80_000)) > 0).float().view(-1, 8).mean(dim=0)
    assert torch.allclose(kept, torch.full((8,), 0.5), atol=0.02)


def test_a_seed_gives_the_same_and_evaluation_drops_nothing() -> None:
    model = nn.Sequential(nn.Dropout(0.3), nn.ModuleDict({"inner": nn.Dropout(0.0)})["inner"])
    quicken_dropout(model)
    assert isinstance(model[1], nn.Dropout), "a dropout of nothing needs no replacement"
    inputs = torch.randn(7, 13)
    torch.manual_seed(3)
    first = model(inputs)
    torch.manual_seed(3)
    assert torch.equal(model(inputs), first)
    assert not torch.equal(model(inputs), first)
    model.train(mode=False)
    assert torch.equal(model(inputs), inputs)
    assert model[0](torch.zeros(0, 4)).shape == (0, 4)
