"""Dropout that is fast on processors, where torch's own is slow."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


def quicken_dropout(model: "nn.Module") -> None:
    """Let the dropout of a model draw a byte for each element instead of a number.

    torch draws one number after the other; here eight bytes are drawn at once, and each decides about one
    element. Measured on one core: 1.9 ms instead of 4.5 ms for forward and backward over 864 x 384 elements.
    The probability is rounded to a multiple of 1/256: 0.1 becomes 0.1016.
    """
    from torch import nn

    for module in model.modules():
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout and child.p > 0.0:
                setattr(module, name, _build_byte_dropout(child.p))


def _build_byte_dropout(probability: float) -> "nn.Module":
    import torch
    from torch import nn

    dropped = min(max(round(probability * 256), 1), 255)

    class ByteDropout(nn.Module):
        """Zeroes elements with a probability that is a multiple of 1/256, and scales up the others."""

        def forward(self, inputs: "torch.Tensor") -> "torch.Tensor":
            if not self.training:
                return inputs
            # From the lowest integer upwards without an end: all 64 bits are random.
            words = torch.empty(inputs.numel() // 8 + 1, dtype=torch.int64).random_(-(2**63), None)
            kept = words.view(torch.uint8)[: inputs.numel()].view(inputs.shape) >= dropped
            return inputs * kept.to(inputs.dtype).mul_(256 / (256 - dropped))

    return ByteDropout()
