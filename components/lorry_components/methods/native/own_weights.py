"""The common part of the methods that train the base's own weights."""

import contextlib
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_components.methods.base import AdaptedModel, MethodOptions
from lorry_components.methods.native.base import NativeMethod
from lorry_components.methods.tensors import copy_tensors, load_tensors, save_tensors
from lorry_registry.manifest import BaseIdentity

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn
    from transformers import PreTrainedModel


class OwnWeightsMethod(NativeMethod):
    """Some of the base's own weights are trained, and those that changed are saved as whole tensors."""

    copies_trained = True
    continues = True

    def __init__(
        self, options: "MethodOptions | Mapping[str, Any] | None", peft_task_type: str | None = None
    ) -> None:
        super().__init__(options, peft_task_type)
        self._before: dict[str, torch.Tensor] = {}
        self._head: frozenset[str] = frozenset()

    @abstractmethod
    def choose_parameters(self, model: "nn.Module") -> set[str]:
        """Return the names of the base's parameters that are trained."""

    def adapt(self, model: "PreTrainedModel", newly_initialized: frozenset[str]) -> "nn.Module":
        """Make the chosen weights trainable and keep a copy of them."""
        chosen = self.choose_parameters(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in chosen or name in newly_initialized)
        self._head = newly_initialized
        self._before = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if name in chosen and name not in newly_initialized
        }
        return model

    def save(self, model: "nn.Module", folder: Path, base: BaseIdentity) -> None:
        """Write the tensors that training changed, and the new head."""
        changed = {
            name: parameter
            for name, parameter in model.named_parameters()
            if name in self._head
            or (name in self._before and not parameter.detach().cpu().equal(self._before[name].cpu()))
        }
        self.write_config(folder, base)
        save_tensors(changed, folder)

    def continue_from(self, model: "nn.Module", folder: Path, newly_initialized: frozenset[str]) -> None:
        """Replace trained tensors by the saved ones; what is saved later is still compared with the base."""
        self.read_config(folder)
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        copy_tensors(load_tensors(folder, trained, newly_initialized, may_lack=True), trained)

    def restore(
        self, model: "PreTrainedModel", folder: Path, newly_initialized: frozenset[str]
    ) -> AdaptedModel:
        """Replace tensors of the base by the changed ones."""
        import torch

        self.read_config(folder)
        parameters = dict(model.named_parameters())
        changed = load_tensors(folder, parameters, newly_initialized, may_lack=True)
        before = {name: parameters[name].detach().clone() for name in changed.keys() - newly_initialized}

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
