"""The optimizers that a task can name, and what AdamW in 8 bits needs.

AdamW keeps two moments of 4 bytes for each trained parameter. bitsandbytes keeps them in one byte each, with
a scale for every 256 of them (Dettmers et al. 2021, https://arxiv.org/abs/2110.02861). It leaves small
tensors in 32 bits, and embeddings too, because transformers asks it to.
"""

import importlib
from typing import TYPE_CHECKING, Any

from lorry_components.models.quantization import require_bitsandbytes
from lorry_registry.errors import TrainingError

if TYPE_CHECKING:
    from torch import nn

ADAMW_8BIT = "adamw-8bit"
# Tensors with fewer elements keep their moments in 32 bits.
_LEAST_NUMBERS = 4096


def name_optimizer(optimizer: str, device: str) -> str:
    """Return transformers' name of an optimizer.

    The fused kernel reads weights and moments once, and not once for each operation: on a processor it is
    four times as fast for the 22.7 million parameters of MiniLM.
    """
    if optimizer == ADAMW_8BIT:
        return "adamw_bnb_8bit"
    return "adamw_torch_fused" if device in ("cuda", "cpu") else "adamw_torch"


def require_optimizer(optimizer: str) -> None:
    """Refuse an optimizer that this installation lacks.

    Raises:
        MissingExtraError: It needs ``bitsandbytes``, which is not installed.
    """
    if optimizer == ADAMW_8BIT:
        require_bitsandbytes(
            "adamw-8bit needs bitsandbytes", where="train.optimizer", otherwise="write optimizer: adamw"
        )


def prepare_optimizer(optimizer: str, device: str) -> None:
    """Make an optimizer ready for a training, and check that it works on its device.

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
        # bitsandbytes raises any of these where its library does not suit the device.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise TrainingError(
            f"bitsandbytes cannot compute adamw-8bit on this machine's {device}: {reason}",
            where="train.optimizer",
            todo="write optimizer: adamw, or install a bitsandbytes for this machine",
        ) from error
    # bitsandbytes remembers for the whole process, by position and address, which parameters stay in 32 bits:
    # those of an earlier training would be mistaken for parameters of this one.
    library.optim.GlobalOptimManager.get_instance().initialize()


def _try_step(bitsandbytes: Any, device: str) -> None:
    """Take a step on the smallest tensor whose moments are held in 8 bits."""
    import torch

    parameter = torch.nn.Parameter(torch.zeros(_LEAST_NUMBERS, device=device))
    parameter.grad = torch.ones_like(parameter)
    bitsandbytes.optim.AdamW8bit([parameter]).step()


def count_wide_moments(model: "nn.Module") -> int:
    """Count the trained parameters whose moments an 8-bit optimizer keeps in 32 bits."""
    from torch import nn

    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return sum(
        parameter.numel()
        for parameter in model.parameters()
        if parameter.requires_grad and (parameter.numel() < _LEAST_NUMBERS or id(parameter) in embeddings)
    )
