"""Closed forms of what methods train, as functions of a base's sizes alone.

``h`` is the width of the residual stream, ``L`` the layers, ``w`` the width of a bottleneck. The head of a
task is in none of them. They explain the papers' rows, and check the real modules.
"""

from lorry_components.models.dimensions import Dimensions


def count_bottlenecks(
    dimensions: Dimensions,
    width: int,
    *,
    each_layer: int = 1,
    without_layers: int = 0,
    has_norm: bool = False,
) -> int:
    """Count bottleneck adapters: down ``h w + w``, up ``w h + h``, and ``2 h`` for a LayerNorm.

    Houlsby et al. put two in a layer, Pfeiffer et al. one, Lin et al. one with a LayerNorm, and Rueckle et
    al. leave those of the lowest layers out.

    Args:
        dimensions: The base's.
        width: Of the bottleneck; the papers' reduction factor f is ``h / w``.
        each_layer: Bottlenecks in a layer.
        without_layers: Layers that have none.
        has_norm: Whether each has a LayerNorm of its own.
    """
    hidden = dimensions.hidden
    one = 2 * hidden * width + width + hidden + (2 * hidden if has_norm else 0)
    return (dimensions.all_layers - without_layers) * each_layer * one


def count_encoder_biases(dimensions: Dimensions) -> int:
    """Count the biases of an encoder like BERT or RoBERTa, without a pooler.

    A layer has those of query, key, value and output, ``4 h``, of the MLP, ``f + h``, and of two LayerNorms,
    ``2 h``; the embeddings' LayerNorm has ``h``.
    """
    hidden = dimensions.hidden
    return dimensions.layers * (7 * hidden + dimensions.feed_forward) + hidden


def count_decoder_blocks(dimensions: Dimensions, blocks: int) -> int:
    """Count whole blocks of a decoder like GPT-2: ``12 h^2 + 13 h`` each when the MLP is ``f = 4 h`` wide.

    Attention has ``h`` to ``3 h`` and ``h`` to ``h``: ``4 h^2 + 4 h``. The MLP has ``h`` to ``f`` and back:
    ``2 h f + f + h``. Two LayerNorms have ``4 h``.
    """
    hidden, inner = dimensions.hidden, dimensions.feed_forward
    return blocks * (4 * hidden**2 + 4 * hidden + 2 * hidden * inner + inner + hidden + 4 * hidden)


def count_lora(dimensions: Dimensions, rank: int, *, outputs: int, each_layer: int) -> int:
    """Count LoRA's A, ``r h``, and B, ``o r``, on matrices of ``h`` inputs.

    Args:
        dimensions: The base's.
        rank: Of the update.
        outputs: ``o``, the outputs of one matrix.
        each_layer: Matrices in a layer.
    """
    return dimensions.all_layers * each_layer * rank * (dimensions.hidden + outputs)


def count_soft_tokens(dimensions: Dimensions, tokens: int) -> int:
    """Count prompt tuning: one vector of width ``h`` a token."""
    return tokens * dimensions.hidden


def count_prompt_encoder(dimensions: Dimensions, tokens: int) -> int:
    """Count P-tuning's tokens with its authors' encoder, a two-layer LSTM in both directions and an MLP.

    Each direction is ``h / 2`` wide, so that both together are ``h`` wide again. A direction of a layer has
    four gates with ``h`` inputs, ``h / 2`` recurrent inputs and two biases; the MLP is ``h`` to ``h`` twice.
    """
    hidden = dimensions.hidden
    half = hidden // 2
    direction = 4 * (half * hidden + half * half + 2 * half)
    return count_soft_tokens(dimensions, tokens) + 2 * 2 * direction + 2 * (hidden**2 + hidden)


def count_prefix(dimensions: Dimensions, tokens: int) -> int:
    """Count P-tuning v2: a key and a value of width ``h`` a token and layer."""
    return tokens * dimensions.all_layers * 2 * dimensions.hidden


def count_layer_prefixes(dimensions: Dimensions, tokens: int) -> int:
    """Count PreLayer tuning: one activation of width ``h`` a token and layer (Hu et al. 2021, sec. 5.1)."""
    return tokens * dimensions.all_layers * dimensions.hidden
