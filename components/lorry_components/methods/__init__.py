"""Methods: how a frozen base becomes trainable, what of it is saved, how it is loaded again.

A method is one module with one class. Adding one is adding a file and a line in :data:`METHODS`. Nothing
here imports torch or peft at module level: a task file is checked without them.

The base classes, by what a method changes: :mod:`own_weights` (weights of the base), :mod:`bottleneck` (new
modules inside its blocks, found by :mod:`layers`), :mod:`peft_method` (whatever PEFT implements), and of the
last :mod:`targets` (beside chosen linear layers) and :mod:`soft_tokens` (before the input).
"""

from collections.abc import Mapping

from lorry_components.methods.base import AdaptedModel, Method
from lorry_components.methods.native.bitfit import BitFit
from lorry_components.methods.native.bottleneck import AdapterD, AdapterH, AdapterL, AdapterP
from lorry_components.methods.native.ft_top import FineTuneTop
from lorry_components.methods.native.full import FullFineTuning
from lorry_components.methods.native.prelayer import PreLayer
from lorry_components.methods.peft.adalora import AdaLora
from lorry_components.methods.peft.any_peft import AnyPeft
from lorry_components.methods.peft.ia3 import Ia3
from lorry_components.methods.peft.lora import Lora
from lorry_components.methods.peft.qlora import QLora
from lorry_components.methods.peft.vera import Vera
from lorry_components.methods.soft_tokens.p_tuning import PTuning
from lorry_components.methods.soft_tokens.p_tuning_v2 import PTuningV2
from lorry_components.methods.soft_tokens.prompt_tuning import PromptTuning

METHODS: Mapping[str, type[Method]] = {
    method.name: method
    for method in (
        *(FullFineTuning, FineTuneTop, BitFit),
        *(AdapterH, AdapterP, AdapterL, AdapterD, PreLayer),
        *(Lora, QLora, AdaLora, Vera, Ia3),
        *(PromptTuning, PTuning, PTuningV2),
        AnyPeft,
    )
}

__all__ = [
    "METHODS",
    "AdaLora",
    "AdaptedModel",
    "AdapterD",
    "AdapterH",
    "AdapterL",
    "AdapterP",
    "AnyPeft",
    "BitFit",
    "FineTuneTop",
    "FullFineTuning",
    "Ia3",
    "Lora",
    "Method",
    "PTuning",
    "PTuningV2",
    "PreLayer",
    "PromptTuning",
    "QLora",
    "Vera",
]
