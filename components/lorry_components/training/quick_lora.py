"""LoRA's linear layers, computed in fewer passes over memory than PEFT's."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def quicken_lora(model: "nn.Module") -> None:
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

    class QuickLinear(layer.Linear):
        """PEFT's layer, with another way to compute it while it trains."""

        def forward(self, x: "torch.Tensor", *args: Any, **kwargs: Any) -> "torch.Tensor":
            is_training = self.training and torch.is_grad_enabled()
            if not is_training or self.disable_adapters or self.merged or args or kwargs:
                return super().forward(x, *args, **kwargs)
            ((name, lower),) = self.lora_A.items()
            device = x.device.type
            if torch.is_autocast_enabled(device):
                x = x.to(torch.get_autocast_dtype(device))
            base, upper = self.base_layer, self.lora_B[name]
            computed: torch.Tensor = product.apply(
                x, base.weight, base.bias, lower.weight, upper.weight, self.scaling[name]
            )
            return computed

    return QuickLinear


def _build_product() -> Any:
    import torch

    class Product(torch.autograd.Function):
        """W x + b + s B A x for rows x."""

        @staticmethod
        def forward(
            ctx: Any,
            x: torch.Tensor,
            weight: torch.Tensor,
            bias: torch.Tensor | None,
            lower: torch.Tensor,
            upper: torch.Tensor,
            scale: float,
        ) -> torch.Tensor:
            rows = x.reshape(-1, x.shape[-1])
            weight, lower, scaled = weight.to(x.dtype), lower.to(x.dtype), (upper * scale).to(x.dtype)
            inner = rows @ lower.t()
            computed = rows @ weight.t() if bias is None else torch.addmm(bias.to(x.dtype), rows, weight.t())
            computed.addmm_(inner, scaled.t())
            ctx.save_for_backward(rows, weight, lower, scaled, inner)
            ctx.scale, ctx.shape, ctx.dtype = scale, x.shape, upper.dtype
            return computed.view(*x.shape[:-1], -1)

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> Any:
            rows, weight, lower, scaled, inner = ctx.saved_tensors
            outer = gradient.reshape(-1, gradient.shape[-1])
            inner_gradient = outer @ scaled
            # The layer below may be the first that is trained.
            of_rows = None
            if ctx.needs_input_grad[0]:
                of_rows = (outer @ weight).addmm_(inner_gradient, lower).view(ctx.shape)
            of_lower = (inner_gradient.t() @ rows).to(ctx.dtype)
            of_upper = (outer.t() @ inner).to(ctx.dtype).mul_(ctx.scale)
            return of_rows, None, None, of_lower, of_upper, None

    return Product
