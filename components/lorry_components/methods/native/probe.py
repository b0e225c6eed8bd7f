"""A linear probe: the base stays as it is, and nothing is learned but the head, which is fitted at once."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lorry_components.methods.base import AdaptedModel, MethodOptions
from lorry_components.methods.native.own_weights import OwnWeightsMethod

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class Probe(OwnWeightsMethod):
    """A linear head on the frozen base."""

    name = "probe"
    summary = "nothing but a linear head, fitted to the frozen base"
    # Nothing is trained in steps.
    learning_rate = 0.0
    max_adapter_mib = 64.0
    freezes_base = True
    copies_trained = False
    continues = False
    trains_in_steps = False
    options_model = MethodOptions

    def choose_parameters(self, model: "nn.Module") -> set[str]:
        """Choose nothing."""
        return set()

    def restore(
        self, model: "PreTrainedModel", folder: Path, newly_initialized: frozenset[str]
    ) -> AdaptedModel:
        """Give the base its head. Without the adapter there is none, and all outputs are 0."""
        import torch

        super().restore(model, folder, newly_initialized)
        head = {name: model.get_parameter(name) for name in sorted(newly_initialized)}

        @contextlib.contextmanager
        def without_head() -> Iterator[None]:
            fitted = {name: parameter.detach().clone() for name, parameter in head.items()}
            with torch.no_grad():
                for parameter in head.values():
                    parameter.zero_()
            try:
                yield
            finally:
                with torch.no_grad():
                    for name, parameter in head.items():
                        parameter.copy_(fitted[name])

        return AdaptedModel(model, without_head)
