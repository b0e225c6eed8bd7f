"""Bottleneck adapters: two small projections with a nonlinearity between them, in every block.

Houlsby et al. 2019 (https://arxiv.org/abs/1902.00751) put one on the output of attention and one on that of
the MLP, before they are added to the residual stream. Pfeiffer et al. 2021 (https://arxiv.org/abs/2005.00247)
put one on the sum, and Rücklé et al. 2020 (https://arxiv.org/abs/2010.11918) omit those of the lowest blocks.
Lin et al. 2020 (https://arxiv.org/abs/2004.03829) put one with a layer norm of its own on what the block
returns. :data:`~lorry_components.methods.native.bottleneck_places.Placement` says it in formulas.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

from lorry_components.methods.base import AdaptedModel, MethodOptions, refuse_faults
from lorry_components.methods.native.base import NativeConfig, NativeMethod
from lorry_components.methods.native.bottleneck_places import (
    MODULE,
    Placement,
    insert_bottlenecks,
    list_norms,
)
from lorry_components.methods.tensors import copy_tensors, load_tensors, save_tensors
from lorry_components.models.blocks import build_skeleton, find_layers
from lorry_components.models.dimensions import read_hidden_size
from lorry_registry.errors import AdapterRejectedError, Fault, TrainingError
from lorry_registry.manifest import CONFIG_NAME, BaseIdentity

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

Activation = Literal["relu", "gelu", "silu", "tanh"]
_DEFAULT_REDUCTION = 16.0


class BottleneckOptions(MethodOptions):
    """Options of all bottleneck adapters.

    Attributes:
        reduction: How many times narrower than the base the bottleneck is. Without it and a size, 16.
        size: The bottleneck's width, instead of a reduction.
        activation: The nonlinearity. Houlsby et al. use ``gelu``.
        train_layer_norms: Whether the base's layer norms in the blocks with a bottleneck are trained, too, as
            Houlsby et al. do.
    """

    reduction: Annotated[float, Field(ge=1)] | None = None
    size: Annotated[int, Field(ge=1)] | None = None
    activation: Activation = "relu"
    train_layer_norms: bool = False

    @model_validator(mode="after")
    def _check_width(self) -> Self:
        if self.reduction is not None and self.size is not None:
            raise ValueError("give 'reduction' or 'size', not both")
        return self


class PlacedOptions(BottleneckOptions):
    """Options of bottlenecks after the MLP alone.

    Attributes:
        placement: What a bottleneck reads and changes; None: what it does in the method's paper.
    """

    placement: Placement | None = None


class AdapterDropOptions(PlacedOptions):
    """Options of Adapter-D.

    Attributes:
        drop: How many blocks have no adapter, counted from the lowest; None: half of them.
    """

    drop: Annotated[int, Field(ge=0)] | None = None


class _Shape(BaseModel):
    """What bottlenecks are like on a base."""

    size: Annotated[int, Field(ge=1)]
    activation: Activation
    drop: Annotated[int, Field(ge=0)]
    placement: Placement
    train_layer_norms: bool


class _BottleneckConfig(NativeConfig, _Shape):
    """The stored configuration."""


class BottleneckMethod(NativeMethod):
    """Bottlenecks in the blocks of a frozen base.

    Attributes:
        follows_attention: Whether there is one after attention as well as after the MLP.
        has_norm: Whether it begins with a layer norm of its own.
        placement: What the one after the MLP reads and changes, unless the options say otherwise.
    """

    freezes_base = True
    continues = True
    max_adapter_mib = 64.0
    options_model = BottleneckOptions
    config_model = _BottleneckConfig
    learning_rate = 2e-3
    learns_matrices = True
    follows_attention: ClassVar[bool] = False
    has_norm: ClassVar[bool] = False
    placement: ClassVar[Placement] = "sublayer"

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that blocks are known and not all omitted, and that the base is wider than a bottleneck."""
        yield from self._check_model(build_skeleton(config))

    def adapt(self, model: "PreTrainedModel", newly_initialized: frozenset[str]) -> "nn.Module":
        """Freeze the base and insert bottlenecks, which at first change nothing."""
        refuse_faults(self._check_model(model))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in newly_initialized)
        options: BottleneckOptions = self.options
        placement = options.placement if isinstance(options, PlacedOptions) else None
        self._shape = _Shape(
            size=self._choose_size(model),
            activation=options.activation,
            drop=self._choose_drop(model),
            placement=placement or self.placement,
            train_layer_norms=options.train_layer_norms,
        )
        self._insert(model, self._shape)
        self._own = newly_initialized | _list_norm_parameters(model, self._shape)
        for name in self._own:
            model.get_parameter(name).requires_grad_(True)
        return model

    def save(self, model: "nn.Module", folder: Path, base: BaseIdentity) -> None:
        """Write the bottlenecks, the head, and the layer norms if they are trained."""
        self.write_config(folder, base, **self._shape.model_dump())
        save_tensors(_list_own(model, self._own), folder)

    def continue_from(self, model: "nn.Module", folder: Path, newly_initialized: frozenset[str]) -> None:
        """Load saved bottlenecks of the same shape into those that were inserted."""
        saved = self.read_config(folder).model_dump(include=set(_Shape.model_fields))
        if saved != self._shape.model_dump():
            raise AdapterRejectedError("its bottlenecks have another shape", where=str(folder / CONFIG_NAME))
        own = _list_own(model, self._own)
        copy_tensors(load_tensors(folder, own, newly_initialized), own)

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
        modules = self._insert(model, config)
        norms = _list_norm_parameters(model, config)
        own = _list_own(model, newly_initialized | norms)
        loaded = load_tensors(folder, own, newly_initialized)
        before = {name: own[name].detach().clone() for name in norms}

        def copy_in(tensors: "Mapping[str, torch.Tensor]") -> None:
            with torch.no_grad():
                for name, tensor in tensors.items():
                    own[name].copy_(tensor)

        @contextlib.contextmanager
        def without_adapter() -> Iterator[None]:
            _switch(modules, is_active=False)
            copy_in(before)
            try:
                yield
            finally:
                _switch(modules, is_active=True)
                copy_in({name: loaded[name] for name in norms})

        copy_in(loaded)
        model.train(mode=False)
        return AdaptedModel(model, without_adapter)

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

    def _insert(self, model: "PreTrainedModel", shape: _Shape) -> "list[nn.Module]":
        return insert_bottlenecks(
            find_layers(model)[shape.drop :],
            shape.placement,
            hidden=read_hidden_size(model.config),
            size=shape.size,
            activation=shape.activation,
            has_norm=self.has_norm,
            follows_attention=self.follows_attention,
        )


class AdapterH(BottleneckMethod):
    """A bottleneck on the output of attention and one on that of the MLP of every block."""

    name = "adapter-h"
    summary = "bottlenecks after attention and MLP (Houlsby)"
    follows_attention = True


class AdapterP(BottleneckMethod):
    """A bottleneck on the sum of MLP and residual stream of every block."""

    name = "adapter-p"
    summary = "a bottleneck after the MLP (Pfeiffer)"
    options_model = PlacedOptions
    placement = "sum"


class AdapterL(BottleneckMethod):
    """A bottleneck with a layer norm of its own on what every block returns."""

    name = "adapter-l"
    summary = "a bottleneck with a layer norm after the MLP (Lin)"
    options_model = PlacedOptions
    placement = "block"
    has_norm = True


class AdapterD(AdapterP):
    """Adapter-P in the upper blocks alone: nothing is propagated back below the first."""

    name = "adapter-d"
    summary = "bottlenecks after the MLP of the upper blocks (AdapterDrop)"
    options_model = AdapterDropOptions

    def _choose_drop(self, model: "PreTrainedModel") -> int:
        drop: int | None = self.options.drop
        return len(find_layers(model)) // 2 if drop is None else drop


def _list_norm_parameters(model: "nn.Module", shape: _Shape) -> frozenset[str]:
    """Return the names of the base's own parameters that are trained: those of layer norms, or none."""
    if not shape.train_layer_norms:
        return frozenset()
    norms = list_norms(find_layers(model)[shape.drop :])
    return frozenset(
        f"{name}.{part}" for name, norm in norms.items() for part, _ in norm.named_parameters(recurse=False)
    )


def _list_own(model: "nn.Module", further: frozenset[str]) -> "dict[str, nn.Parameter]":
    """Return the parameters of bottlenecks, and further ones by name."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if f".{MODULE}." in name or name in further
    }


def _switch(modules: "Sequence[Any]", *, is_active: bool) -> None:
    for module in modules:
        module.is_active = is_active
