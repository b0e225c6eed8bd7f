"""The meta device, made to behave like a real one: fused attention kernels, and a batch without padding.

On the meta device PyTorch takes attention apart and keeps the matrix of scores, whose size grows with the
square of the length. The fused kernels, FlashAttention and its kin, keep query, key, value, output and one
number a row.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any


def imitate_device(*, on_cuda: bool) -> AbstractContextManager[Any]:
    """Return a context in which ``scaled_dot_product_attention`` keeps what a fused kernel would keep.

    Args:
        on_cuda: Whether the kernels are those of a GPU. On a CPU there is none with dropout.
    """
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    class FusedAttention(torch.autograd.Function):
        """Shapes alone: nothing is computed."""

        @staticmethod
        def forward(
            ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
        ) -> torch.Tensor:
            # In memory the heads are interleaved, so that joining them again takes no copy.
            *rows, heads, length, _ = query.shape
            output = query.new_empty((*rows, length, heads, value.shape[-1])).transpose(-3, -2)
            normaliser = query.new_empty(query.shape[:-1], dtype=torch.float32)
            ctx.save_for_backward(query, key, value, mask, output, normaliser)
            return output

        @staticmethod
        def backward(ctx: Any, *_gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            query, key, value, *_ = ctx.saved_tensors
            return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None

    class Mode(TorchFunctionMode):
        def __torch_function__(
            self,
            func: Any,
            types: Any,
            args: tuple[Any, ...] = (),
            kwargs: Mapping[str, Any] | None = None,
        ) -> Any:
            if func is torch.Tensor.__contains__:
                # transformers looks for padding in the tokens; the longest batch has none.
                return False
            named = dict(kwargs or {})
            dropout = named.get("dropout_p", args[4] if len(args) > 4 else 0.0)
            if func is not functional.scaled_dot_product_attention or (dropout and not on_cuda):
                return func(*args, **named)
            values = [*args[:4], *(None for _ in range(4 - len(args)))]
            for index, name in enumerate(("query", "key", "value", "attn_mask")):
                values[index] = named.get(name, values[index])
            apply: Callable[..., torch.Tensor] = FusedAttention.apply
            return apply(*values)

    return Mode()
