"""Bottleneck adapters: two small projections with a nonlinearity between them, in every block.

Houlsby et al. 2019 (https://arxiv.org/abs/1902.00751) put one after attention and one after the MLP, Pfeiffer
et al. 2021 (https://arxiv.org/abs/2005.00247) one after the MLP, Lin et al. 2020
(https://arxiv.org/abs/2004.03829) one with a layer norm before it, and Rücklé et al. 2020
(https://arxiv.org/abs/2010.11918) omit those of the lowest blocks. All are applied to the output of a
sub-layer before it is added to the residual stream.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from lorry_components.methods.base import AdaptedModel, MethodOptions, refuse_faults
from lorry_components.methods.native.base import NativeConfig, NativeMethod
from lorry_components.methods.tensors import load_tensors, save_tensors
from lorry_components.models.blocks import build_skeleton, find_layers
from lorry_components.models.dimensions import read_hidden_size
from lorry_registry.errors import AdapterRejectedError, Fault, TrainingError
from lorry_registry.manifest import CONFIG_NAME, BaseIdentity

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

Activation = Literal["relu", "gelu", "silu", "tanh"]
_MODULE = "bottleneck"
_DEFAULT_REDUCTION = 16.0


class BottleneckOptions(MethodOptions):
    """Options of all bottleneck adapters.

    Attributes:
        reduction: How many times narrower than the base the bottleneck is; or
        size: its width. Without either, the reduction is 16.
        activation: The nonlinearity.
    """

    reduction: Annotated[float, Field(ge=1)] | None = None
    size: Annotated[int, Field(ge=1)] | None = None
    activation: Activation = "relu"

    @model_validator(mode="after")
    def _check_width(self) -> Self:
        if self.reduction is not None and self.size is not None:
            raise ValueError("give 'reduction' or 'size', not both")
        return self


class AdapterDropOptions(BottleneckOptions):
    """Options of Adapter-D.

    Attributes:
        drop: How many blocks have no adapter, counted from the lowest; None: half of them.
    """

    drop: Annotated[int, Field(ge=0)] | None = None


class _BottleneckConfig(NativeConfig):
    size: Annotated[int, Field(ge=1)]
    activation: Activation
    drop: Annotated[int, Field(ge=0)]


class BottleneckMethod(NativeMethod):
    """Bottlenecks in the blocks of a frozen base.

    Attributes:
        follows_attention: Whether there is one after attention as well as after the MLP.
        has_norm: Whether a layer norm comes first.
    """

    freezes_base = True
    max_adapter_mib = 64.0
    options_model = BottleneckOptions
    config_model = _BottleneckConfig
    learning_rate = 2e-3
    learns_matrices = True
    follows_attention: ClassVar[bool] = False
    has_norm: ClassVar[bool] = False

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that blocks are known and not all omitted, and that the base is wider than a bottleneck."""
        yield from self._check_model(build_skeleton(config))

    def adapt(self, model: "PreTrainedModel", newly_initialized: frozenset[str]) -> "nn.Module":
        """Freeze the base and insert bottlenecks, which at first change nothing."""
        refuse_faults(self._check_model(model))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in newly_initialized)
        self._shape = (self._choose_size(model), self.options.activation, self._choose_drop(model))
        self._head = newly_initialized
        self._insert(model, *self._shape)
        return model

    def save(self, model: "nn.Module", folder: Path, base: BaseIdentity) -> None:
        """Write the bottlenecks and the head."""
        size, activation, drop = self._shape
        self.write_config(folder, base, size=size, activation=activation, drop=drop)
        save_tensors(_list_own(model, self._head), folder)

    def restore(
        self, model: "PreTrainedModel", folder: Path, newly_initialized: frozenset[str]
    ) -> AdaptedModel:
        """Insert bottlenecks of the saved shape and load the tensors into them."""
        import torch

        config = self.read_config(folder)
        if config.drop >= len(find_layers(model)):
            raise AdapterRejectedError(
                f"it leaves out {config.drop} blocks, and {type(model).__name__} has no more",
                where=str(folder / CONFIG_NAME),
                todo="it was made for another base",
            )
        modules = self._insert(model, config.size, config.activation, config.drop)
        own = _list_own(model, newly_initialized)
        with torch.no_grad():
            for name, tensor in load_tensors(folder, own, newly_initialized).items():
                own[name].copy_(tensor)
        model.train(mode=False)
        return AdaptedModel(model, lambda: _without(modules))

    def _check_model(self, model: "PreTrainedModel") -> Iterator[Fault]:
        try:
            blocks = len(find_layers(model))
        except TrainingError as error:
            yield Fault(error.where, error.what, error.todo)
            return
        drop = self._choose_drop(model)
        if drop >= blocks:
            yield Fault("method.drop", f"the base has {blocks} blocks, and leaving out {drop} leaves none")
        size, hidden = self._choose_size(model), read_hidden_size(model.config)
        if size > hidden:
            yield Fault("method.size", f"a bottleneck of {size} is wider than the base, {hidden}")

    def _choose_size(self, model: "PreTrainedModel") -> int:
        options: BottleneckOptions = self.options
        if options.size is not None:
            return options.size
        return max(1, int(read_hidden_size(model.config) / (options.reduction or _DEFAULT_REDUCTION)))

    def _choose_drop(self, model: "PreTrainedModel") -> int:
        return 0

    def _insert(self, model: "PreTrainedModel", size: int, activation: str, drop: int) -> "list[nn.Module]":
        hidden = read_hidden_size(model.config)
        inserted = []
        for block in find_layers(model)[drop:]:
            for place in (*([block.attention_output] if self.follows_attention else []), block.mlp_output):
                module = _build_bottleneck(hidden, size, activation, has_norm=self.has_norm)
                # Inside the linear module and not around it, so that the base's own names do not change.
                place.add_module(_MODULE, module.to(model.device))
                place.register_forward_hook(_apply)
                inserted.append(module)
        return inserted


class AdapterH(BottleneckMethod):
    """A bottleneck after attention and one after the MLP of every block."""

    name = "adapter-h"
    summary = "bottlenecks after attention and MLP (Houlsby)"
    follows_attention = True


class AdapterP(BottleneckMethod):
    """A bottleneck after the MLP of every block."""

    name = "adapter-p"
    summary = "a bottleneck after the MLP (Pfeiffer)"


class AdapterL(BottleneckMethod):
    """A bottleneck after the MLP of every block, with a layer norm before it."""

    name = "adapter-l"
    summary = "a bottleneck with a layer norm after the MLP (Lin)"
    has_norm = True


class AdapterD(BottleneckMethod):
    """A bottleneck after the MLP of the upper blocks: nothing is propagated back below the first."""

    name = "adapter-d"
    summary = "bottlenecks after the MLP of the upper blocks (AdapterDrop)"
    options_model = AdapterDropOptions

    def _choose_drop(self, model: "PreTrainedModel") -> int:
        drop: int | None = self.options.drop
        return len(find_layers(model)) // 2 if drop is None else drop


def _build_bottleneck(hidden: int, size: int, activation: str, *, has_norm: bool) -> "nn.Module":
    from torch import nn
    from transformers.activations import ACT2FN

    class Bottleneck(nn.Module):
        """x + up(activation(down(norm(x))))."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(hidden) if has_norm else nn.Identity()
            self.down = nn.Linear(hidden, size)
            self.activation = ACT2FN[activation]
            self.up = nn.Linear(size, hidden)
            # At first, the model computes what the base computes.
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)
            self.is_active = True

        def forward(self, outputs: "torch.Tensor") -> "torch.Tensor":
            if not self.is_active:
                return outputs
            inner = self.norm(outputs.to(self.down.weight.dtype))
            change: torch.Tensor = self.up(self.activation(self.down(inner)))
            return outputs + change.to(outputs.dtype)

    return Bottleneck()


def _apply(module: "nn.Module", _inputs: Any, outputs: "torch.Tensor") -> Any:
    return module.get_submodule(_MODULE)(outputs)


def _list_own(model: "nn.Module", newly_initialized: frozenset[str]) -> "dict[str, nn.Parameter]":
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if f".{_MODULE}." in name or name in newly_initialized
    }


@contextlib.contextmanager
def _without(modules: "list[Any]") -> Iterator[None]:
    for module in modules:
        module.is_active = False
    try:
        yield
    finally:
        for module in modules:
            module.is_active = True
