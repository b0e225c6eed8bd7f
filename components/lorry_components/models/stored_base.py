"""The facts of a base that need no torch: ``config.json``, and the headers of its weights.

Importing torch and transformers takes several times as long as checking a task file otherwise does. For most
tasks nothing of them is needed: the headers name every weight and its shape. The classes here stand in for
transformers' configuration and model in the checks of task types and methods, and answer what the files say.
Any other question raises :class:`NotStoredError`, and a base with anything unusual is not read at all:
transformers has to build its model then.
"""

import ast
import contextlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lorry_components.models.bases import CONFIG_NAME, WEIGHTS_PATTERN
from lorry_components.models.dimensions import Dimensions, find_positions, read_dimensions
from lorry_registry.adapters.verification import TensorEntry, read_tensor_entries
from lorry_registry.errors import AdapterRejectedError

BLOCK_ENDS = (
    ("attention.output.dense", "output.dense", "output.LayerNorm"),  # BERT, RoBERTa, DeBERTa (v2)
    ("attention.out_lin", "ffn.lin2", "output_layer_norm"),  # DistilBERT
    ("attn.Wo", "mlp.Wo", None),  # ModernBERT
    ("attn.c_proj", "mlp.c_proj", None),  # GPT-2
    ("attn.attention.out_proj", "mlp.c_proj", None),  # GPT-Neo
    ("attn.out_proj", "mlp.fc_out", None),  # GPT-J
    ("attention.dense", "mlp.dense_4h_to_h", None),  # GPT-NeoX
    ("self_attention.dense", "mlp.dense_4h_to_h", None),  # BLOOM, Falcon
    ("self_attn.o_proj", "mlp.down_proj", None),  # Llama, Mistral, Gemma, Qwen
    ("self_attn.dense", "mlp.fc2", None),  # Phi
    ("self_attn.out_proj", "fc2", "final_layer_norm"),  # OPT, BART
    ("layer.0.SelfAttention.o", "layer.1.DenseReluDense.wo", None),  # T5 and MT5, encoder
    ("layer.0.SelfAttention.o", "layer.2.DenseReluDense.wo", None),  # T5 and MT5, decoder
)
"""The last module of attention and of the MLP, by their names inside a block, and the layer norm with which
the block ends if it has one of that name. What comes out of the first two is added to the residual stream."""

# The only matrix in a known block that no linear layer has.
_EMBEDDING = "relative_attention_bias"
_STATED = ("is_encoder_decoder", "is_decoder")


class NotStoredError(LookupError):
    """The files of a base do not answer what was asked."""


@dataclass(frozen=True, slots=True)
class StoredLinear:
    """A linear layer, of which the shape is known."""

    weight: TensorEntry


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A transformer block, by its name in the model."""

    name: str


class StoredModel:
    """The blocks of a model, by the names and shapes of their weights.

    Args:
        config: The base's configuration.
        tensors: The weights of all blocks.
        blocks: The names of the blocks.
    """

    def __init__(
        self, config: "StoredConfig", tensors: Mapping[str, TensorEntry], blocks: Mapping[str, object]
    ) -> None:
        self.config = config
        self.base_model = self
        self.blocks = [StoredBlock(name) for name in blocks]
        self._tensors = tensors

    def __getattr__(self, name: str) -> Any:
        raise NotStoredError(name)

    def named_parameters(self) -> Iterator[tuple[str, TensorEntry]]:
        """Return the weights of all blocks by name, as a module of torch's does."""
        yield from self._tensors.items()

    @property
    def linear(self) -> dict[str, StoredLinear]:
        """The linear layers by name."""
        return {
            name.removesuffix(".weight"): StoredLinear(entry)
            for name, entry in self._tensors.items()
            if name.endswith(".weight") and len(entry.shape) == 2 and _EMBEDDING not in name
        }


@dataclass(frozen=True)
class StoredConfig:
    """A base's configuration, under the names that transformers has for its sizes.

    Attributes:
        values: The content of ``config.json``.
        dimensions: Its sizes.
        tensors: Names and shapes of all weights.
    """

    values: Mapping[str, Any]
    dimensions: Dimensions
    tensors: Mapping[str, TensorEntry] = field(repr=False)

    def __getattr__(self, name: str) -> Any:
        # A field that the file leaves out looks like one that the architecture has not.
        if name in _STATED:
            return self.values.get(name, False)
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def hidden_size(self) -> int:
        """The width of the residual stream."""
        return self.dimensions.hidden

    @property
    def max_position_embeddings(self) -> int | None:
        """How many positions there are."""
        return find_positions(self.values)

    def get_text_config(self, *, decoder: bool = False) -> "StoredConfig":
        """Return the whole: no base with several sections is read."""
        return self

    @cached_property
    def model(self) -> StoredModel | None:
        """The model; None: its blocks are not known, or not those that the configuration states."""
        blocks: dict[str, dict[str, TensorEntry]] = {}
        for name, entry in self.tensors.items():
            parts = name.split(".")
            number = next((index for index, part in enumerate(parts) if part.isdigit()), None)
            if number is not None:
                block = blocks.setdefault(".".join(parts[: number + 1]), {})
                block[".".join(parts[number + 1 :])] = entry
        known = {name: block for name, block in blocks.items() if self._is_block(block)}
        if len(known) != self.dimensions.all_layers:
            return None
        tensors = {f"{name}.{inner}": known[name][inner] for name in known for inner in known[name]}
        return StoredModel(self, tensors, known)

    def _is_block(self, block: Mapping[str, TensorEntry]) -> bool:
        for attention, mlp, _ in BLOCK_ENDS:
            ends = [block.get(f"{attention}.weight"), block.get(f"{mlp}.weight")]
            if all(end is not None and self.dimensions.hidden in end.shape for end in ends):
                return True
        return False


def read_stored_config(folder: Path) -> StoredConfig | None:
    """Read what the files of a base say; None: too little, or it is of an unusual kind.

    It is of a usual kind if it is one model of texts of an architecture that transformers has, in no packed
    format, with sizes and weights that agree.
    """
    try:
        values = json.loads((folder / CONFIG_NAME).read_text("utf-8"))
        tensors: dict[str, TensorEntry] = {}
        for path in folder.glob(WEIGHTS_PATTERN):
            tensors |= read_tensor_entries(path)
    except (OSError, ValueError, AdapterRejectedError):
        return None
    if not isinstance(values, dict) or values.keys() & {"text_config", "quantization_config", "auto_map"}:
        return None
    dimensions = read_dimensions(values)
    if dimensions is None or dimensions.positions is None or dimensions.hidden % dimensions.heads:
        return None
    config = StoredConfig(values, dimensions, tensors)
    has_words = any(entry.shape[:1] == (dimensions.vocabulary,) for entry in tensors.values())
    is_known = has_words and _is_architecture(values.get("model_type")) and config.model is not None
    return config if is_known else None


def read_table(module: str, name: str) -> Mapping[str, Any]:
    """Return a table that is written out in a library's source, without importing the library.

    Raises:
        NotStoredError: It is not written out there.
    """
    top, *inner = module.split(".")
    for root in _list_roots(top):
        path = root.joinpath(*inner).with_suffix(".py")
        for statement in ast.parse(path.read_text("utf-8")).body if path.is_file() else ():
            match statement:
                case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                    # An OrderedDict has its rows as an argument.
                    table = value.args[0] if isinstance(value, ast.Call) and value.args else value
                    with contextlib.suppress(ValueError):
                        return dict(ast.literal_eval(table))
    raise NotStoredError(f"{module}.{name}")


def _is_architecture(model_type: object) -> bool:
    """Return whether transformers has a model of a type, without importing it."""
    name = str(model_type).replace("-", "_")
    return name.isidentifier() and any(
        (root / "models" / name).is_dir() for root in _list_roots("transformers")
    )


def _list_roots(package: str) -> list[Path]:
    found = importlib.util.find_spec(package)
    return [Path(root) for root in (found.submodule_search_locations or ())] if found is not None else []
