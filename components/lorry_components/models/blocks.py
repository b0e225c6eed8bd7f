"""The structure of a base: its blocks, the modules at which attention and MLP end, its linear layers.

Architectures are recognised by structure, not by name: a block is a member of a module list that holds a
known pair of modules. So a new model with the modules of an old one needs no change here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorry_components.models.stored_base import BLOCK_ENDS, StoredConfig, StoredModel
from lorry_registry.errors import BaseModelError, TrainingError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, slots=True)
class Block:
    """One transformer block.

    Attributes:
        name: Its name in the model.
        module: The block.
        attention_output: The linear module at which self-attention ends.
        mlp_output: The linear module at which the MLP ends.
        output_norm: The layer norm with which the block ends, that of the sum of the MLP's output and the
            residual stream; None: the block ends with the sum.
    """

    name: str
    module: "nn.Module"
    attention_output: "nn.Module"
    mlp_output: "nn.Module"
    output_norm: "nn.Module | None"


def find_layers(model: "nn.Module | StoredModel") -> list[Block]:
    """Return the blocks of a model in their order, an encoder's before its decoder's.

    Raises:
        TrainingError: The architecture is not known.
    """
    blocks: list[Any] = model.blocks if isinstance(model, StoredModel) else list(_walk(model))
    if not blocks:
        raise TrainingError(
            f"where the blocks of {type(model).__name__} are is not known",
            where="base.model",
            todo="choose a method that needs no blocks, such as lora, or a base of another architecture",
        )
    return blocks


def build_skeleton(config: "PretrainedConfig | StoredConfig") -> Any:
    """Build a base without a head from its configuration, all shapes and no numbers.

    For what its files say there is no model to build: the :class:`StoredModel` is returned.

    Raises:
        BaseModelError: The configuration contradicts itself.
    """
    if isinstance(config, StoredConfig):
        return config.model
    import torch
    from transformers import AutoModel

    try:
        with torch.device("meta"):
            skeleton: PreTrainedModel = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise BaseModelError(
            f"transformers cannot build it from its config.json: {error}".splitlines()[0],
            where=f"a {config.model_type}",
            todo="restore the base, or choose one of an architecture that this version knows",
        ) from error
    return skeleton


def find_body(model: "PreTrainedModel") -> "nn.Module":
    """Return a base without its head; a UNet has none."""
    return model if is_unet(model) else model.base_model


def is_unet(model: "nn.Module | StoredModel") -> bool:
    """Return whether a model is a UNet of diffusers'."""
    config: Any = model.config
    return getattr(config, "model_type", None) is None and hasattr(config, "cross_attention_dim")


def list_linear(model: "nn.Module | StoredModel") -> dict[str, Any]:
    """Return the linear layers of a model by name, GPT-2's Conv1D with them."""
    if isinstance(model, StoredModel):
        return model.linear
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}


def _walk(model: "nn.Module") -> Iterator[Block]:
    from torch import nn

    for list_name, modules in model.named_modules():
        if not isinstance(modules, nn.ModuleList):
            continue
        stack = model.get_submodule(list_name.rpartition(".")[0])
        blocks = [_find_block(f"{list_name}.{index}", module, stack) for index, module in enumerate(modules)]
        # Where only some are known, as among blocks with a mixture of experts, the last of them would not be
        # the last of the model.
        if None not in blocks:
            yield from (block for block in blocks if block is not None)


def _find_block(name: str, module: "nn.Module", stack: "nn.Module") -> Block | None:
    for attention, mlp, norm in BLOCK_ENDS:
        ends = (_find(module, attention), _find(module, mlp))
        if ends[0] is not None and ends[1] is not None:
            last = _get(module, norm) if norm is not None and _ends_with_norm(module, stack) else None
            return Block(name, module, ends[0], ends[1], last)
    return None


def _ends_with_norm(block: "nn.Module", stack: "nn.Module") -> bool:
    """Return whether layer norms of a block come after the sums: else a stack needs one after its last block.

    BART's blocks and mBART's have the same modules, and norm after and before.
    """
    if hasattr(block, "do_layer_norm_before"):  # OPT, of both sorts
        return not block.do_layer_norm_before
    is_early = bool(getattr(block, "pre_norm", False))  # X-MOD
    return not is_early and not any(_get(stack, name) for name in ("layer_norm", "final_layer_norm"))


def _find(module: "nn.Module", path: str) -> "nn.Module | None":
    """Return the module at a path, unless there is none or it is no linear map (a mixture of experts)."""
    submodule = _get(module, path)
    # GPT-2's Conv1D is no nn.Linear, and a linear map as well.
    return submodule if getattr(getattr(submodule, "weight", None), "ndim", 0) == 2 else None


def _get(module: "nn.Module", path: str) -> "nn.Module | None":
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None
