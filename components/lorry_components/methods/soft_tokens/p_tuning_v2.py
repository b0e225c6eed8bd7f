"""P-tuning v2: keys and values of a prefix in every layer, as in prefix tuning.

Liu et al. 2022, https://arxiv.org/abs/2110.07602; Li and Liang 2021, https://arxiv.org/abs/2101.00190.

PEFT's prefix tuning selects a head's outputs by position and needs an argument that transformers renamed.
Here the prefix is put into the cache of keys and values that is passed to the base's body, below any head.
"""

import contextlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from lorry_components.methods.base import AdaptedModel, refuse_faults
from lorry_components.methods.native.base import NativeConfig, NativeMethod
from lorry_components.methods.soft_tokens.base import SoftTokenOptions
from lorry_components.methods.tensors import load_tensors, save_tensors
from lorry_components.models.blocks import build_skeleton
from lorry_components.models.dimensions import read_hidden_size
from lorry_components.models.model_family import is_bidirectional, is_encoder_decoder
from lorry_registry.errors import Fault
from lorry_registry.manifest import BaseIdentity

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import Cache, PretrainedConfig, PreTrainedModel

_MODULE = "prefix"
_SAVED = "prefix.weight"
# transformers 5 renamed it.
_CACHE_NAMES = ("cache", "past_key_values")


class PTuningV2Options(SoftTokenOptions):
    """P-tuning v2's options.

    Attributes:
        projection: Whether an MLP computes the prefix during training, as Li and Liang propose.
        hidden_size: The MLP's width; None: the base's.
    """

    projection: bool = False
    hidden_size: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _check_projection(self) -> Self:
        if self.hidden_size is not None and not self.projection:
            raise ValueError(
                "'hidden_size' is that of the projection: write projection: true, or leave it out"
            )
        return self


class _PrefixConfig(NativeConfig):
    tokens: Annotated[int, Field(ge=0, le=4096)]


class PTuningV2(NativeMethod):
    """Keys and values before those of the input, to which every layer attends."""

    name = "p-tuning-v2"
    summary = "keys and values of a prefix in every layer"
    learning_rate = 3e-2
    max_adapter_mib = 64.0
    freezes_base = True
    adds_positions = True
    starts_as_base = False
    code_version = 3
    # transformers passes no cache to layers that it checkpoints.
    survives_checkpointing = False
    options_model = PTuningV2Options
    config_model = _PrefixConfig

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that the base accepts a cache of keys and values: DeBERTa-v2 and ModernBERT do not."""
        yield from self._check_model(build_skeleton(config))

    def count_added_tokens(self) -> int:
        """Return the length of the prefix: the input's positions are counted from its end."""
        tokens: int = self.options.tokens
        return tokens

    def adapt(self, model: "PreTrainedModel", newly_initialized: frozenset[str]) -> "nn.Module":
        """Freeze the base and give its body a prefix."""
        options: PTuningV2Options = self.options
        refuse_faults(self._check_model(model))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in newly_initialized)
        self._head = newly_initialized
        width = (options.hidden_size or read_hidden_size(model.config)) if options.projection else None
        _insert(model, options.tokens, width)
        return model

    @property
    def can_be_left_out(self) -> bool:
        """Whether a prefix without tokens is an adapter."""
        return True

    def leave_out(self, model: "nn.Module") -> None:
        """Keep no token of the prefix."""
        prefix: Any = model.get_submodule(_MODULE)
        prefix.tokens = 0

    def collect_tensors(self, model: "nn.Module") -> "dict[str, torch.Tensor]":
        """Return the prefix and the head. The module that computed the prefix is no longer needed."""
        prefix: Any = model.get_submodule(_MODULE)
        return {**_pick(model, self._head), _SAVED: prefix.compute()}

    def list_shapes(self, model: "nn.Module") -> dict[str, tuple[int, ...]]:
        """Return the shapes of the prefix and of the head, without the module that computes the prefix."""
        return {name: tuple(tensor.shape) for name, tensor in self.collect_tensors(model).items()}

    def save(self, model: "nn.Module", folder: Path, base: BaseIdentity) -> None:
        """Write the prefix and the head. The module that computed the prefix is no longer needed."""
        import torch

        prefix: Any = model.get_submodule(_MODULE)
        self.write_config(folder, base, tokens=prefix.tokens)
        with torch.no_grad():
            save_tensors(self.collect_tensors(model), folder)

    def restore(
        self, model: "PreTrainedModel", folder: Path, newly_initialized: frozenset[str]
    ) -> AdaptedModel:
        """Give the body the saved prefix."""
        import torch

        config = self.read_config(folder)
        prefix: Any = _insert(model, config.tokens, None)
        own = {**_pick(model, newly_initialized), _SAVED: prefix.embedding.weight}
        with torch.no_grad():
            for name, tensor in load_tensors(folder, own, newly_initialized).items():
                own[name].copy_(tensor)
        model.train(mode=False)
        return AdaptedModel(model, lambda: _without(prefix))

    def _check_model(self, model: "PreTrainedModel") -> Iterator[Fault]:
        body: Any = model.base_model
        if is_encoder_decoder(model.config):
            yield Fault(
                "method.name", "p-tuning-v2 is for one stack of blocks", "choose prompt-tuning or lora"
            )
        elif _find_cache_name(body) is None:
            yield Fault(
                "method.name",
                f"{type(body).__name__} takes no keys and values from outside, which {self.name} needs",
                "choose prompt-tuning, lora or an adapter",
            )
        elif getattr(model.config.get_text_config(), "num_kv_shared_layers", 0):
            yield Fault(
                "method.name", f"layers of {type(body).__name__} share keys and values", "choose lora"
            )


def _pick(model: "nn.Module", names: frozenset[str]) -> "dict[str, torch.Tensor]":
    return {name: model.get_parameter(name) for name in names}


def _find_cache_name(body: "nn.Module") -> str | None:
    known = inspect.signature(body.forward).parameters
    return next((name for name in _CACHE_NAMES if name in known), None)


def _insert(model: "PreTrainedModel", tokens: int, projection: int | None) -> "nn.Module":
    body: Any = model.base_model
    prefix = _build_prefix(model.config.get_text_config(), tokens, projection).to(model.device)
    model.add_module(_MODULE, prefix)
    body.register_forward_pre_hook(_make_hook(prefix, body), with_kwargs=True)
    return prefix


def _build_prefix(config: "PretrainedConfig", tokens: int, projection: int | None) -> "nn.Module":
    import torch
    from torch import nn
    from transformers import DynamicCache

    blocks, hidden = config.num_hidden_layers, read_hidden_size(config)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    from_vectors: Any = nn.Embedding.from_pretrained
    size = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    numbers = blocks * 2 * heads * size

    class Prefix(nn.Module):
        """The prefix: one row for each token, with the keys and values of all layers one after another."""

        def __init__(self) -> None:
            super().__init__()
            self.tokens = tokens
            self.is_active = True
            # nn.Embedding draws the same, and warns of a prefix without tokens.
            drawn = torch.randn(tokens, numbers if projection is None else hidden)
            self.embedding: nn.Embedding = from_vectors(drawn, freeze=False)
            self.projection = (
                nn.Identity()
                if projection is None
                else nn.Sequential(nn.Linear(hidden, projection), nn.Tanh(), nn.Linear(projection, numbers))
            )

        def compute(self) -> "torch.Tensor":
            """Return the prefix, shape (tokens, numbers)."""
            computed: torch.Tensor = self.projection(self.embedding.weight)
            return computed[: self.tokens]

        def fill(self, cache: "Cache", rows: int, dtype: "torch.dtype") -> None:
            """Fill an empty cache with the prefix."""
            shaped = self.compute().to(dtype).view(tokens, blocks, 2, heads, size).permute(1, 2, 3, 0, 4)
            for index, (keys, values) in enumerate(shaped):
                cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), index)

        def create_cache(self) -> "Cache":
            """Return an empty cache as the base uses it."""
            return DynamicCache(config=config)

    return Prefix()


def _make_hook(prefix: Any, body: Any) -> Any:
    import torch

    names = list(inspect.signature(body.forward).parameters)
    cache_name = _find_cache_name(body) or ""
    sees_ahead = is_bidirectional(body.config)

    def give(_module: "nn.Module", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not (prefix.is_active and prefix.tokens):
            return None
        inputs = {**dict(zip(names, args, strict=False)), **kwargs}
        given = inputs["input_ids"] if inputs.get("input_ids") is not None else inputs["inputs_embeds"]
        rows = given.shape[0]
        cache = inputs.get(cache_name)
        if cache is None:
            cache = prefix.create_cache()
        # When text is generated, the cache contains the prefix from the first step on.
        if cache.get_seq_length() == 0:
            prefix.fill(cache, rows, body.dtype)
        inputs[cache_name] = cache
        mask = inputs.get("attention_mask")
        if mask is not None and mask.ndim == 2:
            mask = torch.cat([mask.new_ones(rows, prefix.tokens), mask], dim=1)
            inputs["attention_mask"] = _spread(mask, given.shape[1], body.dtype) if sees_ahead else mask
        for name in ("position_ids", "cache_position"):
            if inputs.get(name) is not None:
                inputs[name] = inputs[name] + prefix.tokens
        return (), inputs

    return give


def _spread(mask: "torch.Tensor", queries: int, dtype: "torch.dtype") -> "torch.Tensor":
    """Return the mask as it is added to attention scores: an encoder expects no keys but its input's."""
    import torch

    closed = (mask == 0)[:, None, None, :].expand(-1, 1, queries, -1)
    added = torch.zeros(closed.shape, dtype=dtype, device=mask.device)
    return added.masked_fill(closed, torch.finfo(dtype).min)


@contextlib.contextmanager
def _without(prefix: Any) -> Iterator[None]:
    prefix.is_active = False
    try:
        yield
    finally:
        prefix.is_active = True
