"""Rows of several LoRA adapters in one pass of their base.

A row x of adapter a gets h = W0 x + s_a B_a A_a x: A and B are gathered by row, and W0 is multiplied once
with all rows. This module imports torch and peft.
"""

import contextlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import Linear
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from lorry_components.methods.peft.base import ADAPTER
from lorry_components.models.pooled_model import HEAD, is_pooled


@dataclass(frozen=True, slots=True)
class LoraLayers:
    """The layers of an adapter that can share a pass with others.

    Attributes:
        layers: The layers with an update, by name.
        head: The output layer.
    """

    layers: Mapping[str, Any]
    head: nn.Module

    @property
    def shape(self) -> Hashable:
        """What adapters in one pass have in common: the names of their layers and their ranks."""
        return tuple((name, layer.r[ADAPTER]) for name, layer in self.layers.items())


def find_lora_layers(model: Any) -> LoraLayers | None:
    """Return the layers of an adapter, or None if it is not plain LoRA under a head of Lorry's own."""
    configs = getattr(model, "peft_config", None)
    if not configs or not is_pooled(model.get_base_model()):
        return None
    config: Any = configs[ADAPTER]
    head = getattr(model.get_base_model(), HEAD)
    tuned = {name: part for name, part in model.named_modules() if isinstance(part, BaseTunerLayer)}
    # Anything else that an adapter changes would act on the rows of the others.
    is_plain = (
        [part for part in model.modules() if isinstance(part, AuxiliaryTrainingWrapper)] == [head]
        and getattr(config, "bias", None) == "none"
        and all(_is_plain(layer) for layer in tuned.values())
    )
    if not tuned or not is_plain:
        return None
    return LoraLayers(tuned, head.modules_to_save[ADAPTER])


def _is_plain(layer: Any) -> bool:
    return (
        type(layer) is Linear
        and type(layer.get_base_layer()) is nn.Linear
        and not layer.lora_variant
        and layer.lora_B[ADAPTER].bias is None
    )


@contextlib.contextmanager
def mix_rows(host: LoraLayers, rows: Sequence[LoraLayers]) -> Iterator[None]:
    """Apply to each row of a batch the update of its own adapter.

    Args:
        host: The layers of the model that is called, whose own update must be switched off.
        rows: The layers of the adapter of each row.
    """
    # Each adapter is read once, however many rows it has.
    distinct = {id(row): row for row in rows}
    numbers = {key: number for number, key in enumerate(distinct)}
    places = torch.tensor([numbers[id(row)] for row in rows])
    hooks = [
        layer.register_forward_hook(_Update([row.layers[name] for row in distinct.values()], places))
        for name, layer in host.layers.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Update:
    """Adds the updates of the rows to what the base's own layer returned.

    Args:
        layers: The layer of each adapter.
        places: Which of them each row has, shape (rows,).
    """

    def __init__(self, layers: Sequence[Any], places: torch.Tensor) -> None:
        # Shapes: (rows, width, rank), (rows, rank, outputs) and (rows, 1, 1).
        self._down = torch.stack([layer.lora_A[ADAPTER].weight for layer in layers])[places].transpose(1, 2)
        self._up = torch.stack([layer.lora_B[ADAPTER].weight for layer in layers])[places].transpose(1, 2)
        scalings = [layer.scaling[ADAPTER] for layer in layers]
        self._scaling = self._down.new_tensor(scalings)[places].view(-1, 1, 1)

    def __call__(self, _layer: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(output, torch.bmm(inputs[0], self._down) * self._scaling, self._up)
