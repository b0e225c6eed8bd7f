"""Width, depth and vocabulary of a base, under one name for every family."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NAMES = {
    "hidden": ("hidden_size", "d_model", "n_embd", "dim"),
    "layers": ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers"),
    "heads": ("num_attention_heads", "num_heads", "n_head", "n_heads", "encoder_attention_heads"),
    "vocabulary": ("vocab_size",),
}
_FEED_FORWARD = ("intermediate_size", "d_ff", "n_inner", "hidden_dim", "ffn_dim", "encoder_ffn_dim")
_DECODER_LAYERS = ("num_decoder_layers", "decoder_layers")
_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx")


@dataclass(frozen=True, slots=True)
class Dimensions:
    """The sizes that closed forms are written in.

    Attributes:
        hidden: Width of the residual stream.
        layers: Layers of the encoder, or of a model that has one stack.
        decoder_layers: Layers of the decoder beside an encoder; 0: there is one stack.
        heads: Attention heads in a layer.
        head_width: Width of one head.
        feed_forward: Width inside a layer's MLP.
        vocabulary: Tokens.
        positions: Longest sequence, in tokens; None: not limited by the architecture.
    """

    hidden: int
    layers: int
    decoder_layers: int
    heads: int
    head_width: int
    feed_forward: int
    vocabulary: int
    positions: int | None

    @property
    def all_layers(self) -> int:
        """Layers of encoder and decoder together."""
        return self.layers + self.decoder_layers


def read_dimensions(configuration: Mapping[str, Any]) -> Dimensions | None:
    """Read the sizes out of a configuration; None when it names them in a way that is not known here."""
    # Models of text and images keep the language model's sizes in a section of their own.
    section = configuration.get("text_config")
    values = section if isinstance(section, Mapping) and section else configuration
    found = {name: _find(values, names) for name, names in _NAMES.items()}
    hidden, layers, heads = found["hidden"], found["layers"], found["heads"]
    vocabulary = found["vocabulary"]
    if not hidden or not layers or not heads or not vocabulary:
        return None
    has_two_stacks = bool(values.get("is_encoder_decoder"))
    positions = _find(values, _POSITIONS)
    if positions is not None and values.get("model_type") in ("roberta", "xlm-roberta", "camembert"):
        # These count positions from the padding token's index, 1, so that two of them are never used.
        positions -= 2
    return Dimensions(
        hidden=hidden,
        layers=layers,
        decoder_layers=(_find(values, _DECODER_LAYERS) or layers) if has_two_stacks else 0,
        heads=heads,
        head_width=_find(values, ("d_kv", "head_dim", "attention_head_size")) or hidden // heads,
        feed_forward=_find(values, _FEED_FORWARD) or 4 * hidden,
        vocabulary=vocabulary,
        positions=positions,
    )


def _find(values: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((int(values[name]) for name in names if isinstance(values.get(name), int)), None)
