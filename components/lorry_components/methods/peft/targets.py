"""The common part of the methods that adapt chosen linear layers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from lorry_components.methods.base import MethodOptions, refuse_faults
from lorry_components.methods.peft.base import PeftMethod
from lorry_components.methods.peft.spans import SPAN_HEAD
from lorry_components.models.blocks import build_skeleton, find_body, find_layers, is_unet, list_linear
from lorry_components.models.stored_base import NotStoredError, StoredModel, read_table
from lorry_registry.errors import Fault, TrainingError
from lorry_registry.tasks.task_document import suggest_name

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

# Self-attention and cross-attention of Stable Diffusion's UNet, as in diffusers' own training scripts.
_UNET_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
Targets = Annotated[list[str], Field(min_length=1)] | Literal["all-linear"]


class TargetOptions(MethodOptions):
    """Options of all methods with targets.

    Attributes:
        targets: Names of the modules to adapt; ``all-linear``: all but the output layer; None: PEFT's choice
            for the base's architecture.
    """

    targets: Targets | None = None


class LayerOptions(TargetOptions):
    """Options of the methods that can be restricted to the last blocks.

    Attributes:
        layers: How many blocks of each stack are adapted, counted from the last; None: all.
    """

    layers: Annotated[int, Field(ge=1)] | None = None


class TargetedMethod(PeftMethod):
    """A PEFT method that adapts chosen linear layers.

    Attributes:
        targets_table: What PEFT's table of its own choice of targets is called: architecture -> names.
    """

    targets_table: ClassVar[str] = "LORA"

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that the base has every target, and that the options suit the targets."""
        yield from self.check_model(build_skeleton(config))

    def adapt(self, model: "PreTrainedModel", newly_initialized: frozenset[str]) -> "nn.Module":
        """Check the options against the base, and wrap it with PEFT."""
        refuse_faults(self.check_model(model))
        return super().adapt(model, newly_initialized)

    def check_model(self, model: "PreTrainedModel") -> Iterator[Fault]:
        """Return the options that do not fit a model."""
        known = list_linear(find_body(model))
        names = {name.rpartition(".")[2] for name in known}
        targets = self.options.targets
        for target in targets if isinstance(targets, list) else ():
            if not match_targets(known, [target]):
                yield Fault(
                    "method.targets",
                    f"no linear layer of {type(model).__name__} is called {target!r}",
                    suggest_name(target, names),
                )
        if targets is None and not self.find_default_targets(model):
            yield Fault(
                "method.targets",
                f"PEFT cannot put {self.name} on {type(model).__name__} by itself: it knows no targets",
                f"choose targets from {', '.join(sorted(names))}",
            )

    def find_default_targets(self, model: "PreTrainedModel | StoredModel") -> Sequence[str]:
        """Return PEFT's targets for an architecture; empty if it has none."""
        if is_unet(model):
            return _UNET_TARGETS
        name = f"TRANSFORMERS_MODELS_TO_{self.targets_table}_TARGET_MODULES_MAPPING"
        if isinstance(model, StoredModel):
            table = read_table("peft.utils.constants", name)
        else:
            from peft.utils import constants

            table = getattr(constants, name)
        targets = table.get(model.config.model_type) or ()
        return [targets] if isinstance(targets, str) else list(targets)

    def name_targets(self, model: "PreTrainedModel") -> Targets | None:
        """Return the targets for PEFT's configuration; None: PEFT's own choice for the architecture."""
        targets: Targets | None = self.options.targets
        if targets is None and is_unet(model):
            return list(_UNET_TARGETS)
        if targets == "all-linear" and getattr(self.options, "layers", None) is not None:
            # PEFT restricts modules that are named to layers, and 'all-linear' to none.
            return _name_linear_in_blocks(model)
        return targets

    def list_targeted(self, model: "PreTrainedModel") -> "dict[str, nn.Module]":
        """Return the linear layers that are adapted, by name."""
        # The head is no target: a new one is trained in full, and an output layer is tied to the embedding.
        known = list_linear(find_body(model))
        # T5's model with this head has no body of its own: the head is a part of it, beside the stacks.
        known.pop(SPAN_HEAD, None)
        if self.options.targets == "all-linear":
            return known
        return match_targets(known, self.options.targets or self.find_default_targets(model))

    def has_transposed_targets(self, model: "PreTrainedModel | StoredModel") -> bool:
        """Return whether the targets are GPT-2's Conv1D, whose weights are transposed."""
        if isinstance(model, StoredModel):
            raise NotStoredError("whether weights are transposed")
        from transformers.pytorch_utils import Conv1D

        return any(isinstance(module, Conv1D) for module in self.list_targeted(model).values())


def match_targets(known: "Mapping[str, nn.Module]", targets: Sequence[str]) -> "dict[str, nn.Module]":
    """Return the modules that targets name, matched as in PEFT: by the whole name, or by its end."""
    return {
        name: module
        for name, module in known.items()
        if any(name == target or name.endswith(f".{target}") for target in targets)
    }


def _name_linear_in_blocks(model: "nn.Module") -> list[str]:
    """Return what the linear layers of a model's blocks are called within their modules."""
    names = (name for block in find_layers(model) for name in list_linear(block.module))
    return sorted({name.rpartition(".")[2] for name in names})


def check_rank(targeted: "Mapping[str, nn.Module]", rank: int, option: str) -> Iterator[Fault]:
    """Check that no targeted matrix is too small for a rank."""
    for name, module in targeted.items():
        weight: Any = module.weight
        # A 4-bit base packs its weights into a column, but nn.Linear still has their shape.
        limit = min(
            getattr(module, "in_features", weight.shape[0]), getattr(module, "out_features", weight.shape[-1])
        )
        if rank > limit:
            yield Fault(
                f"method.{option}",
                f"rank {rank} is above the rank that {name.rpartition('.')[2]!r} can have, {limit}",
                f"choose a rank of at most {limit}",
            )
            return


def choose_layers(model: "nn.Module", layers: int | None) -> dict[str, Any]:
    """Return PEFT's fields that restrict a method to the last blocks of each stack."""
    if layers is None:
        return {}
    depths = _measure_stacks(model)
    depth = next(iter(depths.values()))
    return {
        "layers_to_transform": list(range(depth - layers, depth)),
        "layers_pattern": sorted({name.rpartition(".")[2] for name in depths}),
    }


def check_layers(model: "nn.Module", layers: int | None) -> Iterator[Fault]:
    """Check that a method can be restricted to the last blocks."""
    if layers is None:
        return
    try:
        depths = _measure_stacks(model)
    except TrainingError as error:
        yield Fault("method.layers", error.what, "leave 'layers' out")
        return
    if len(set(depths.values())) > 1:
        yield Fault("method.layers", "encoder and decoder differ in depth", "leave 'layers' out")
    elif layers > min(depths.values()):
        yield Fault(
            "method.layers",
            f"{layers} blocks are more than the {min(depths.values())} of {type(model).__name__}",
        )


def _measure_stacks(model: "nn.Module") -> dict[str, int]:
    depths: dict[str, int] = {}
    for block in find_layers(model):
        stack = block.name.rpartition(".")[0]
        depths[stack] = depths.get(stack, 0) + 1
    return depths
