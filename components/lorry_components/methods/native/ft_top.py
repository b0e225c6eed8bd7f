"""FT-Top: only the last blocks are trained; a baseline of Hu et al. 2021 (https://arxiv.org/abs/2106.09685)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lorry_components.methods.base import MethodOptions, refuse_faults
from lorry_components.methods.native.own_weights import OwnWeightsMethod
from lorry_components.models.blocks import build_skeleton, find_layers
from lorry_registry.errors import Fault, TrainingError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig


class FineTuneTopOptions(MethodOptions):
    """FT-Top's options.

    Attributes:
        layers: How many blocks are trained, counted from the last.
    """

    layers: Annotated[int, Field(ge=1)] = 2


class FineTuneTop(OwnWeightsMethod):
    """Every weight of the last blocks is trained."""

    name = "ft-top"
    summary = "every weight of the last blocks"
    learning_rate = 3e-4
    learns_matrices = True
    max_adapter_mib = None
    freezes_base = True
    options_model = FineTuneTopOptions

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that the base has enough blocks."""
        yield from check_last(build_skeleton(config), self.options.layers)

    def choose_parameters(self, model: "nn.Module") -> set[str]:
        """Choose the last blocks."""
        layers: int = self.options.layers
        refuse_faults(check_last(model, layers))
        return {
            f"{block.name}.{name}"
            for block in find_layers(model)[-layers:]
            for name, _ in block.module.named_parameters()
        }


def check_last(model: "nn.Module", layers: int) -> Iterator[Fault]:
    """Check that a model has at least so many blocks."""
    try:
        blocks = len(find_layers(model))
    except TrainingError as error:
        yield Fault(error.where, error.what, error.todo)
        return
    if layers > blocks:
        yield Fault("method.layers", f"{layers} blocks are more than the {blocks} of {type(model).__name__}")
