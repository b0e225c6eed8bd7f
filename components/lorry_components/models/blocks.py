"""Where the blocks of a base are, and in each the modules at which attention and MLP end.

Architectures are told apart by structure, not by name: a block is a member of a module list that holds a
known pair of modules. So a new model with the modules of an old one needs no change here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorry_registry.errors import BaseModelError, TrainingError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

# The last module of attention and of the MLP, by their names inside a block. What comes out of either is
# added to the residual stream.
_ENDS = (
    ("attention.output.dense", "output.dense"),  # BERT, RoBERTa, ELECTRA, DeBERTa, DeBERTa-v2
    ("attention.out_lin", "ffn.lin2"),  # DistilBERT
    ("attn.Wo", "mlp.Wo"),  # ModernBERT
    ("attn.c_proj", "mlp.c_proj"),  # GPT-2
    ("attn.attention.out_proj", "mlp.c_proj"),  # GPT-Neo
    ("attn.out_proj", "mlp.fc_out"),  # GPT-J
    ("attention.dense", "mlp.dense_4h_to_h"),  # GPT-NeoX
    ("self_attention.dense", "mlp.dense_4h_to_h"),  # BLOOM, Falcon
    ("self_attn.o_proj", "mlp.down_proj"),  # Llama, Mistral, Gemma, Qwen
    ("self_attn.dense", "mlp.fc2"),  # Phi
    ("self_attn.out_proj", "fc2"),  # OPT, BART
    ("layer.0.SelfAttention.o", "layer.1.DenseReluDense.wo"),  # T5 and MT5, encoder
    ("layer.0.SelfAttention.o", "layer.2.DenseReluDense.wo"),  # T5 and MT5, decoder
)


@dataclass(frozen=True, slots=True)
class Block:
    """One transformer block.

    Attributes:
        name: Its name in the model.
        module: The block.
        attention_output: The linear module at which self-attention ends.
        mlp_output: The linear module at which the MLP ends.
    """

    name: str
    module: "nn.Module"
    attention_output: "nn.Module"
    mlp_output: "nn.Module"


def find_layers(model: "nn.Module") -> list[Block]:
    """Return the blocks of a model in their order, an encoder's before its decoder's.

    Raises:
        TrainingError: The architecture is not known.
    """
    blocks = list(_walk(model))
    if not blocks:
        raise TrainingError(
            f"where the blocks of {type(model).__name__} are is not known",
            where="base.model",
            todo="choose a method that needs no blocks, such as lora, or a base of another architecture",
        )
    return blocks


def build_skeleton(config: "PretrainedConfig") -> "PreTrainedModel":
    """Build a base without a head from its configuration, all shapes and no numbers.

    Raises:
        BaseModelError: The configuration contradicts itself.
    """
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


def read_hidden_size(config: "PretrainedConfig") -> int:
    """Return the width of the residual stream, whatever an architecture calls it."""
    return int(config.get_text_config().hidden_size)


def read_width(model: "PreTrainedModel") -> int:
    """Return the width of a base's residual stream; of a UNet, of its widest blocks."""
    channels: Sequence[int] | None = getattr(model.config, "block_out_channels", None)
    return max(channels) if channels else read_hidden_size(model.config)


def _walk(model: "nn.Module") -> Iterator[Block]:
    from torch import nn

    for list_name, modules in model.named_modules():
        if not isinstance(modules, nn.ModuleList):
            continue
        found = [_find_block(f"{list_name}.{index}", module) for index, module in enumerate(modules)]
        # Where only some are known, as among blocks with a mixture of experts, the last of them would not be
        # the last of the model.
        if None not in found:
            yield from (block for block in found if block is not None)


def _find_block(name: str, module: "nn.Module") -> Block | None:
    for attention, mlp in _ENDS:
        ends = (_find(module, attention), _find(module, mlp))
        if ends[0] is not None and ends[1] is not None:
            return Block(name, module, ends[0], ends[1])
    return None


def _find(module: "nn.Module", path: str) -> "nn.Module | None":
    """Return the module at a path, unless there is none or it is no linear map (a mixture of experts)."""
    try:
        found = module.get_submodule(path)
    except AttributeError:
        return None
    # GPT-2's Conv1D is no nn.Linear, and a linear map as well.
    return found if getattr(getattr(found, "weight", None), "ndim", 0) == 2 else None
