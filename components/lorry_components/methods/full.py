"""Full fine-tuning: the baseline every other method is compared with, stored as what it changed."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lorry_components.methods.base import AdaptedModel, Method, MethodOptions
from lorry_components.methods.tensors import load_tensors, save_tensors
from lorry_registry.errors import AdapterRejectedError
from lorry_registry.manifest import CONFIG_NAME, BaseIdentity
from lorry_registry.verification import read_config

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


class FullFineTuning(Method):
    """Every weight is trained. What is saved are the tensors that differ from the base, whole."""

    name = "full"
    summary = "every weight of the base"
    learning_rate = 5e-5
    max_adapter_mib = None
    freezes_base = False
    options_model = MethodOptions

    def __init__(self, options: dict[str, object]) -> None:
        super().__init__(options)
        self._before: dict[str, torch.Tensor] = {}

    def adapt(self, model: "PreTrainedModel", fresh: frozenset[str]) -> "nn.Module":
        """Make every weight trainable and remember what it was."""
        model.requires_grad_(True)
        self._before = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if name not in fresh
        }
        return model

    def save(self, model: "nn.Module", folder: Path, base: BaseIdentity) -> None:
        """Write the tensors that training changed, the new head with them."""
        changed = {
            name: parameter
            for name, parameter in model.named_parameters()
            if name not in self._before or not parameter.detach().cpu().equal(self._before[name].cpu())
        }
        document = {
            "base_model_name_or_path": base.model,
            "revision": base.revision,
            "lorry_method": self.name,
        }
        (folder / CONFIG_NAME).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", "utf-8")
        save_tensors(changed, folder)

    def restore(self, model: "PreTrainedModel", folder: Path, fresh: frozenset[str]) -> AdaptedModel:
        """Copy the changed tensors over the base's."""
        import torch

        if read_config(folder).get("lorry_method") != self.name:
            raise AdapterRejectedError(
                "it does not hold a full fine-tuning", where=str(folder / CONFIG_NAME), todo="pull it again"
            )
        parameters = dict(model.named_parameters())
        changed = load_tensors(folder, parameters, fresh, may_lack=True)
        before = {name: parameters[name].detach().clone() for name in changed.keys() - fresh}

        def copy_in(tensors: "dict[str, torch.Tensor]") -> None:
            with torch.no_grad():
                for name, tensor in tensors.items():
                    parameters[name].copy_(tensor)

        @contextlib.contextmanager
        def without_adapter() -> Iterator[None]:
            copy_in(before)
            try:
                yield
            finally:
                copy_in(changed)

        copy_in(changed)
        model.train(mode=False)
        return AdaptedModel(model, without_adapter)
