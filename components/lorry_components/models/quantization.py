"""The requirements of methods and optimisers that hold numbers in fewer bits."""

import importlib.util
import sys
from typing import TYPE_CHECKING

from lorry_registry.errors import MissingExtraError

if TYPE_CHECKING:
    from torch import nn

# On processors with BF16 instructions, bitsandbytes changes the layout of the weights in the first forward
# pass without gradients. That layout cannot be trained, so that a validation would end the training; and
# matrices narrower than a block of 64 numbers have none.
_REPACKING = "support_avx512bf16_for_cpu"


def keep_layout(model: "nn.Module") -> None:
    """Keep bitsandbytes from changing the layout of a model's packed weights."""
    for module in model.modules():
        if hasattr(module, _REPACKING):
            setattr(module, _REPACKING, False)


def import_peft_alone() -> None:
    """Import PEFT without bitsandbytes, which it would import for every method where that is installed.

    With bitsandbytes comes torch's compiler: that takes a third as long again as torch and transformers do.
    :func:`let_peft_use_bitsandbytes` undoes it.
    """
    if "peft" in sys.modules or "bitsandbytes" in sys.modules:
        return
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
    try:
        from peft.import_utils import is_bnb_4bit_available, is_bnb_available

        # PEFT remembers the answers.
        is_bnb_available()
        is_bnb_4bit_available()
    finally:
        del sys.modules["bitsandbytes"]


def let_peft_use_bitsandbytes() -> None:
    """Let PEFT look for bitsandbytes again."""
    if "peft" in sys.modules:
        from peft.import_utils import is_bnb_4bit_available, is_bnb_available

        is_bnb_available.cache_clear()
        is_bnb_4bit_available.cache_clear()


def require_bitsandbytes(what: str, *, where: str, otherwise: str) -> None:
    """Refuse what needs bitsandbytes where that is not installed.

    Args:
        what: What needs it, and why.
        where: The field of the task file.
        otherwise: What to write instead.

    Raises:
        MissingExtraError: It is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError(what, where=where, todo=f"pip install 'lorry[quantization]', or {otherwise}")
    let_peft_use_bitsandbytes()
