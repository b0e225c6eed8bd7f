"""The optimisers that a task can name, and what AdamW in 8 bits needs.

AdamW keeps two moments of 4 bytes for each trained parameter. bitsandbytes keeps them in one byte each, with
a scale for each 256 (Dettmers et al. 2021, https://arxiv.org/abs/2110.02861): but not those of small tensors,
and not those of embeddings, which transformers asks it to leave in 32 bits.
"""

import importlib
from typing import TYPE_CHECKING, Any

from lorry_components.models.quantization import require_bitsandbytes
from lorry_registry.errors import TrainingError

if TYPE_CHECKING:
    from torch import nn

ADAMW_8BIT = "adamw-8bit"
# The moments of tensors of fewer numbers stay in 32 bits.
_LEAST_NUMBERS = 4096


def name_optimizer(optimizer: str, device: str) -> str:
    """Return transformers' name of an optimiser.

    The fused kernel goes through weights and moments once instead of once an operation: on a processor, four
    times as fast over the 22.7 million parameters of MiniLM.
    """
    if optimizer == ADAMW_8BIT:
        return "adamw_bnb_8bit"
    return "adamw_torch_fused" if device in ("cuda", "cpu") else "adamw_torch"


def require_optimizer(optimizer: str) -> None:
    """Refuse an optimiser that this installation lacks.

    Raises:
        MissingExtraError: It needs ``bitsandbytes``, which is not installed.
    """
    if optimizer == ADAMW_8BIT:
        require_bitsandbytes(
            "adamw-8bit needs bitsandbytes", where="train.optimizer", otherwise="write optimizer: adamw"
        )


def prepare_optimizer(optimizer: str, device: str) -> None:
    """Make an optimiser ready for a training, and see that it works on its device.

    Raises:
        MissingExtraError: It needs ``bitsandbytes``, which is not installed.
        TrainingError: ``bitsandbytes`` cannot compute it on this device.
    """
    require_optimizer(optimizer)
    if optimizer != ADAMW_8BIT:
        return
    try:
        library = importlib.import_module("bitsandbytes")
        _try_step(library, device)
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        # Where its library does not suit the device, bitsandbytes says so in any of these ways.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise TrainingError(
            f"bitsandbytes cannot compute adamw-8bit on this machine's {device}: {reason}",
            where="train.optimizer",
            todo="write optimizer: adamw, or install a bitsandbytes for this machine",
        ) from error
    # For the whole process it remembers, by their places and addresses, what stays in 32 bits: what it
    # remembers of an earlier training would be taken for parameters of this one.
    library.optim.GlobalOptimManager.get_instance().initialize()


def _try_step(bitsandbytes: Any, device: str) -> None:
    """Take a step on the fewest numbers whose moments are held in 8 bits."""
    import torch

    parameter = torch.nn.Parameter(torch.zeros(_LEAST_NUMBERS, device=device))
    parameter.grad = torch.ones_like(parameter)
    bitsandbytes.optim.AdamW8bit([parameter]).step()


def count_wide_moments(model: "nn.Module") -> int:
    """Count the trained parameters whose moments an optimiser of 8 bits keeps in 32."""
    from torch import nn

    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return sum(
        parameter.numel()
        for parameter in model.parameters()
        if parameter.requires_grad and (parameter.numel() < _LEAST_NUMBERS or id(parameter) in embeddings)
    )
