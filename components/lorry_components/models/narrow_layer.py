"""The last layer of an encoder, computed for the one position that a head reads."""

import importlib
from typing import TYPE_CHECKING, Any

from lorry_components.models.blocks import find_layers

if TYPE_CHECKING:
    import torch
    from torch import nn

# Those whose layers are BERT's.
_FAMILIES = frozenset({"bert", "camembert", "data2vec-text", "electra", "ernie", "roberta", "xlm-roberta"})


def narrow_last_layer(model: "nn.Module") -> bool:
    """Let the last layer of an encoder return the state of the first position alone; return whether it does.

    A head that reads the first position needs the keys and values of the others there, which are a sixth of
    the layer's products in BERT, and nothing else of them. What it is given is the same but for rounding. The
    layer attends as transformers' own cross-attention of the family does, from the first position to all.
    Other architectures are left as they are.

    Args:
        model: A base, adapted or not, whose head reads the first position, in texts padded on the right.
    """
    whole: Any = model
    if whole.config.model_type not in _FAMILIES or whole.config.is_decoder:
        return False
    layer: Any = find_layers(model)[-1].module
    attention = layer.attention
    attention.self.__class__ = _find_cross_attention(type(attention.self))
    attention.is_cross_attention = True

    def forward(
        hidden_states: "torch.Tensor", attention_mask: Any = None, *_: Any, **_options: Any
    ) -> "torch.Tensor":
        # What else a layer is given is for decoders. A mask of two dimensions hides whole positions.
        if attention_mask is not None and attention_mask.ndim == 4:
            attention_mask = attention_mask[:, :, :1]
        attended, _weights = attention(
            hidden_states[:, :1], encoder_hidden_states=hidden_states, encoder_attention_mask=attention_mask
        )
        states: torch.Tensor = layer.feed_forward_chunk(attended)
        return states

    layer.forward = forward
    return True


def _find_cross_attention(kind: type) -> type:
    """Return the class that attends to other states with the parts of a class of self-attention."""
    name = kind.__name__.replace("SelfAttention", "CrossAttention")
    found: type = getattr(importlib.import_module(kind.__module__), name)
    return found
