"""The places of bottlenecks in a block, and the values that they compute there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from lorry_components.models.blocks import Block

if TYPE_CHECKING:
    import torch
    from torch import nn

Placement = Literal["sublayer", "sum", "block"]
"""What a bottleneck reads and changes.

``sublayer``
    The output of attention or of the MLP, before it is added to the residual stream: x + f(x) (Houlsby).
``sum``
    The sum z of the MLP's output and the residual stream. Where a block ends with a layer norm of that sum,
    as in BERT, f reads the norm of z, and what it returns is added before the norm: LN(z + f(LN(z)))
    (Pfeiffer). Elsewhere z is what the block returns: z + f(z).
``block``
    What the block returns, behind any layer norm: x + f(x) (Lin, whose f begins with a layer norm).
"""

MODULE = "bottleneck"
"""The name of a bottleneck in the module that holds it."""


def insert_bottlenecks(
    blocks: Sequence[Block],
    placement: Placement,
    *,
    hidden: int,
    size: int,
    activation: str,
    has_norm: bool,
    follows_attention: bool,
) -> "list[nn.Module]":
    """Put new bottlenecks into blocks, and return them; at first they change nothing.

    Args:
        blocks: The blocks.
        placement: What the one of the MLP reads and changes.
        hidden: The width of the residual stream.
        size: The width of a bottleneck.
        activation: Its nonlinearity.
        has_norm: Whether it begins with a layer norm of its own.
        follows_attention: Whether attention's output has one as well.
    """
    inserted = []
    for block in blocks:
        places = [_find_place(block, placement)]
        if follows_attention:
            places.insert(0, (block.attention_output, _change_output))
        for place, hook in places:
            module = build_bottleneck(hidden, size, activation, has_norm=has_norm)
            # Inside the base's module and not around it, so that the base's own names do not change.
            place.add_module(MODULE, module.to(next(place.parameters()).device))
            place.register_forward_hook(hook)
            inserted.append(module)
    return inserted


def build_bottleneck(hidden: int, size: int, activation: str, *, has_norm: bool) -> "nn.Module":
    """Return a new bottleneck, whose output is zero at first."""
    from torch import nn
    from transformers.activations import ACT2FN

    class Bottleneck(nn.Module):
        """f(x) = up(activation(down(norm(x)))), in the format of x."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(hidden) if has_norm else nn.Identity()
            self.down = nn.Linear(hidden, size)
            self.activation = ACT2FN[activation]
            self.up = nn.Linear(size, hidden)
            # At first, the model computes what the base computes.
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)
            self.is_active = True

        def forward(self, states: "torch.Tensor") -> "torch.Tensor":
            inner = self.norm(states.to(self.down.weight.dtype))
            change: torch.Tensor = self.up(self.activation(self.down(inner)))
            return change.to(states.dtype)

    return Bottleneck()


def list_norms(blocks: Sequence[Block]) -> "dict[str, nn.Module]":
    """Return the layer norms that the base has in some of its blocks, by name."""
    return {
        f"{block.name}.{name}": module
        for block in blocks
        for name, module in block.module.named_modules()
        if "norm" in type(module).__name__.lower()
        and getattr(getattr(module, "weight", None), "ndim", 0) == 1
        and MODULE not in name.split(".")
    }


def _find_place(block: Block, placement: Placement) -> "tuple[nn.Module, Any]":
    if placement == "sublayer":
        return block.mlp_output, _change_output
    if placement == "sum" and block.output_norm is not None:
        return block.output_norm, _change_before_norm
    return block.module, _change_output


def _change_output(module: "nn.Module", _inputs: Any, outputs: Any) -> Any:
    """Return x + f(x) for a module that returns x, alone or as the first of several values."""
    bottleneck: Any = module.get_submodule(MODULE)
    if not bottleneck.is_active:
        return outputs
    if isinstance(outputs, tuple):
        return (outputs[0] + bottleneck(outputs[0]), *outputs[1:])
    return outputs + bottleneck(outputs)


def _change_before_norm(module: "nn.Module", inputs: "tuple[torch.Tensor]", outputs: "torch.Tensor") -> Any:
    """Return LN(z + f(LN(z))) for a layer norm that was called on z."""
    bottleneck: Any = module.get_submodule(MODULE)
    if not bottleneck.is_active:
        return outputs
    # Not module(...), which would call this hook again.
    return module.forward(inputs[0] + bottleneck(outputs).to(inputs[0].dtype))
