"""Full fine-tuning: the baseline of all other methods, of which the changed weights are saved."""

from typing import TYPE_CHECKING

from lorry_components.methods.base import MethodOptions
from lorry_components.methods.native.own_weights import OwnWeightsMethod

if TYPE_CHECKING:
    from torch import nn


class FullFineTuning(OwnWeightsMethod):
    """Every weight is trained."""

    name = "full"
    summary = "every weight of the base"
    learning_rate = 1e-4
    learns_matrices = True
    max_adapter_mib = None
    freezes_base = False
    options_model = MethodOptions

    def choose_parameters(self, model: "nn.Module") -> set[str]:
        """Choose all parameters."""
        return {name for name, _ in model.named_parameters()}
