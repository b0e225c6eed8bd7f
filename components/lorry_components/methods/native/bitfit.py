"""BitFit: only the biases are trained (Ben Zaken et al. 2021, https://arxiv.org/abs/2106.10199)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lorry_components.methods.base import MethodOptions, refuse_faults
from lorry_components.methods.native.own_weights import OwnWeightsMethod
from lorry_components.models.blocks import build_skeleton
from lorry_registry.errors import Fault

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig


class BitFit(OwnWeightsMethod):
    """Every bias of the base is trained, including those of its layer norms."""

    name = "bitfit"
    summary = "every bias of the base"
    learning_rate = 3e-3
    max_adapter_mib = 64.0
    # The weights do not change, but a layer norm needs its weight and bias in the same format.
    freezes_base = False
    options_model = MethodOptions

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that the base has biases: Llama and T5 have none."""
        yield from _check_biases(build_skeleton(config))

    def choose_parameters(self, model: "nn.Module") -> set[str]:
        """Choose the biases."""
        refuse_faults(_check_biases(model))
        return set(_list_biases(model))


# DeBERTa's first version adds the biases of queries and values by itself, outside any linear layer.
_NAMES = frozenset({"bias", "q_bias", "v_bias"})


def _list_biases(model: "nn.Module") -> Iterator[str]:
    return (name for name, _ in model.named_parameters() if name.rpartition(".")[2] in _NAMES)


def _check_biases(model: "nn.Module") -> Iterator[Fault]:
    if next(_list_biases(model), None) is None:
        yield Fault("method.name", f"{type(model).__name__} has no biases, and bitfit trains nothing else")
