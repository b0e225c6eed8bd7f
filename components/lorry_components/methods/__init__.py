"""Methods: how a frozen base becomes trainable, what is saved of it, and how it is loaded again.

A method is one class, usually in a module of its own, derived from :class:`~.base.Method`; its options are a
pydantic model. To add one, add a module and a name in :data:`METHODS`. Nothing here imports torch or peft at
module level, so that task files are checked without them.

:mod:`native`
    Methods without PEFT: :mod:`~native.own_weights` trains weights of the base (full, ft-top, bitfit),
    :mod:`~native.probe` fits a linear head and trains nothing else,
    :mod:`~native.bottleneck` inserts new modules into its blocks (adapter-h, -p, -l and -d),
    :mod:`~native.prelayer` replaces activations of a prefix.
:mod:`peft`
    Methods that PEFT implements: :mod:`~peft.targets` is the base class of those that adapt chosen linear
    layers (lora, qlora, adalora, vera, ia3), :mod:`~peft.any_peft` runs any other one by PEFT's name.
:mod:`soft_tokens`
    Methods that add learned positions to the input (prompt-tuning, p-tuning) or to every layer (p-tuning-v2).

:mod:`tensors` reads and writes weights files.
"""

from collections.abc import Mapping

from lorry_components.methods.base import AdaptedModel, Method
from lorry_components.methods.native.bitfit import BitFit
from lorry_components.methods.native.bottleneck import AdapterD, AdapterH, AdapterL, AdapterP
from lorry_components.methods.native.ft_top import FineTuneTop
from lorry_components.methods.native.full import FullFineTuning
from lorry_components.methods.native.prelayer import PreLayer
from lorry_components.methods.native.probe import Probe
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
        *(FullFineTuning, FineTuneTop, BitFit, Probe),
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
    "Probe",
    "PromptTuning",
    "QLora",
    "Vera",
]
