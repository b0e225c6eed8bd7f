"""LoRA's linear layers, y = W x + b + s B A x in fewer passes over memory than PEFT's.

Shapes, as in peft: W (out_dim, in_dim), lora_A (r, in_dim), lora_B (out_dim, r), x (..., in_dim), y (...,
out_dim).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def fuse_lora(model: "nn.Module") -> None:
    """Let plain LoRA layers of a model compute W0 x + s B A x and its gradients at once while they train.

    PEFT adds the two products in steps, each of which reads and writes all activations, and casts them to the
    format of A and B and back. Here the scale s is in B, and what is added is added where it is computed:
    eight products in all, of which two are large. The formats are autocast's, as before, and what a layer
    computes without gradients is PEFT's still. Layers with dropout, DoRA, or weights that are no plain matrix
    are left as they are.
    """
    from peft.tuners.lora import layer

    quick: Any = None
    for module in model.modules():
        if type(module) is layer.Linear and _is_plain(module):
            quick = quick or _build_class()
            module.__class__ = quick


def _is_plain(module: Any) -> bool:
    from torch import nn

    base = module.base_layer
    return (
        type(base) is nn.Linear
        and not any(parameter.requires_grad for parameter in base.parameters())
        and len(module.lora_A) == 1
        and not module.lora_variant
        and all(isinstance(dropout, nn.Identity) for dropout in module.lora_dropout.values())
        and not any(module.lora_bias.values())
    )


def _build_class() -> Any:
    import torch
    from peft.tuners.lora import layer

    product = _build_product()

    class FusedLinear(layer.Linear):
        """PEFT's layer, with another way to compute it while it trains."""

        def forward(self, x: "torch.Tensor", *args: Any, **kwargs: Any) -> "torch.Tensor":
            is_training = self.training and torch.is_grad_enabled()
            if not is_training or self.disable_adapters or self.merged or args or kwargs:
                return super().forward(x, *args, **kwargs)
            ((name, lora_a),) = self.lora_A.items()
            device = x.device.type
            if torch.is_autocast_enabled(device):
                x = x.to(torch.get_autocast_dtype(device))
            base, lora_b = self.base_layer, self.lora_B[name]
            computed: torch.Tensor = product.apply(
                x, base.weight, base.bias, lora_a.weight, lora_b.weight, self.scaling[name]
            )
            return computed

    return FusedLinear


def _build_product() -> Any:
    import torch

    class Product(torch.autograd.Function):
        """W x + b + s B A x for x (rows, in_dim); kept for the gradients: A x (rows, r)."""

        @staticmethod
        def forward(
            ctx: Any,
            x: torch.Tensor,
            weight: torch.Tensor,
            bias: torch.Tensor | None,
            lora_a: torch.Tensor,
            lora_b: torch.Tensor,
            scale: float,
        ) -> torch.Tensor:
            rows = x.reshape(-1, x.shape[-1])
            weight, lora_a, scaled = weight.to(x.dtype), lora_a.to(x.dtype), (lora_b * scale).to(x.dtype)
            reduced = rows @ lora_a.t()
            computed = rows @ weight.t() if bias is None else torch.addmm(bias.to(x.dtype), rows, weight.t())
            computed.addmm_(reduced, scaled.t())
            ctx.save_for_backward(rows, weight, lora_a, scaled, reduced)
            ctx.scale, ctx.shape, ctx.dtype = scale, x.shape, lora_b.dtype
            return computed.view(*x.shape[:-1], -1)

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> Any:
            rows, weight, lora_a, scaled, reduced = ctx.saved_tensors
            flat_gradient = gradient.reshape(-1, gradient.shape[-1])
            reduced_gradient = flat_gradient @ scaled
            # The layer below may be the first that is trained.
            of_rows = None
            if ctx.needs_input_grad[0]:
                of_rows = (flat_gradient @ weight).addmm_(reduced_gradient, lora_a).view(ctx.shape)
            of_lora_a = (reduced_gradient.t() @ rows).to(ctx.dtype)
            of_lora_b = (flat_gradient.t() @ reduced).to(ctx.dtype).mul_(ctx.scale)
            return of_rows, None, None, of_lora_a, of_lora_b, None

    return Product
