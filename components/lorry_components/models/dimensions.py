"""The sizes of a base, under one name for every architecture: widths, depth, vocabulary, positions.

:func:`read_dimensions` needs nothing but the content of ``config.json``. The other functions ask the
configuration of transformers', which also knows the sizes that a file leaves out, or the model itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorry_registry.errors import BaseModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

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
    """Read the sizes from the content of ``config.json``; None when it names them in an unknown way."""
    # Models of text and images keep the language model's sizes in a section of their own.
    section = configuration.get("text_config")
    values = section if isinstance(section, Mapping) and section else configuration
    sizes = {name: _find(values, names) for name, names in _NAMES.items()}
    hidden, layers, heads, vocabulary = (sizes[name] for name in ("hidden", "layers", "heads", "vocabulary"))
    if not hidden or not layers or not heads or not vocabulary:
        return None
    has_two_stacks = bool(values.get("is_encoder_decoder"))
    return Dimensions(
        hidden=hidden,
        layers=layers,
        decoder_layers=(_find(values, _DECODER_LAYERS) or layers) if has_two_stacks else 0,
        heads=heads,
        head_width=_find(values, ("d_kv", "head_dim", "attention_head_size")) or hidden // heads,
        feed_forward=_find(values, _FEED_FORWARD) or 4 * hidden,
        vocabulary=vocabulary,
        positions=_count_usable(str(values.get("model_type")), find_positions(values)),
    )


def find_positions(configuration: Mapping[str, Any]) -> int | None:
    """Return how many positions the content of ``config.json`` states; None: it states none."""
    return _find(configuration, _POSITIONS)


def count_positions(config: "PretrainedConfig") -> int | None:
    """Return the longest sequence that a base takes, in tokens; None: the architecture sets no limit."""
    text = _choose_text_config(config)
    return _count_usable(text.model_type, getattr(text, "max_position_embeddings", None))


def count_decoder_positions(config: "PretrainedConfig") -> int | None:
    """Return the longest sequence that a base's decoder writes, in tokens; None: no limit is set."""
    positions: int | None = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return positions


def read_hidden_size(config: "PretrainedConfig") -> int:
    """Return the width of the residual stream, no matter what an architecture calls it.

    Raises:
        BaseModelError: The architecture has several widths, or none of its own.
    """
    size = getattr(_choose_text_config(config), "hidden_size", None)
    if not isinstance(size, int):
        raise BaseModelError(
            f"the layers of a {config.model_type} have no single width, from which sizes and the default "
            "learning rate are computed",
            where="base.model",
            todo="write train.learning_rate and choose a method that needs no width, such as lora, or take a "
            "base of another architecture",
        )
    return size


def read_width(model: "PreTrainedModel") -> int:
    """Return the width of a base's residual stream; of a UNet, of its widest blocks.

    Raises:
        BaseModelError: The architecture has several widths, or none of its own.
    """
    channels: Sequence[int] | None = getattr(model.config, "block_out_channels", None)
    return max(channels) if channels else read_hidden_size(model.config)


def read_embedding_size(model: "PreTrainedModel") -> int:
    """Return the width of a base's input embeddings, which may differ from that of its layers."""
    words: Any = model.get_input_embeddings()
    return int(words.embedding_dim)


def _choose_text_config(config: "PretrainedConfig") -> "PretrainedConfig":
    """Return the section of the model that reads text; the whole where there are several such sections."""
    try:
        return config.get_text_config()
    except ValueError:
        # MusicGen has a text encoder and a decoder, each with sizes of its own.
        return config


def _count_usable(model_type: str, positions: int | None) -> int | None:
    """Return how many of an architecture's positions a text can take.

    RoBERTa and its descendants count from the padding token's index, 1: two positions are never used.
    """
    counts_from_padding = "roberta" in model_type or model_type == "camembert"
    return positions - 2 if positions is not None and counts_from_padding else positions


def _find(values: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((int(values[name]) for name in names if isinstance(values.get(name), int)), None)
