"""Soft tokens in the body of a base: they are added to its embeddings, and cut off its outputs.

This module imports torch. Import it only where there is a model.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lorry_components.models.model_family import is_encoder_decoder

# transformers 5 renamed it.
_CACHE_NAMES = ("cache", "past_key_values")
_Forward = Callable[..., Any]


class SoftTokens(nn.Module):
    """Soft tokens, and the module that computes them.

    Args:
        config: PEFT's configuration.
        encoder: Takes numbers of tokens, shape (tokens,), and returns vectors, shape (tokens, width).

    Attributes:
        is_active: Whether the base sees them.
    """

    def __init__(self, config: Any, encoder: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.count: int = config.num_virtual_tokens
        self.width: int = config.token_dim
        self.is_active = True

    def compute(self) -> torch.Tensor:
        """Return the vectors, shape (tokens, width)."""
        if not self.count:
            return torch.empty(0, self.width)
        device = next(self.encoder.parameters()).device
        # As one row of a batch, because an LSTM needs one.
        vectors: torch.Tensor = self.encoder(torch.arange(self.count, device=device)[None])
        return vectors[0]


def insert_soft_tokens(model: PreTrainedModel, soft: SoftTokens, *, keeps_positions: bool) -> None:
    """Put soft tokens before the input of a model's body.

    The first step of a generation puts them into the cache, where later steps count them. Padding on the left
    then stands between them and the input. This only affects layers whose attention window is shorter than
    the input.

    Args:
        model: A base with its head.
        soft: The tokens.
        keeps_positions: Whether the head sees their positions as well, or only those of the input.
    """
    body = _find_reader(model)
    original = body.forward
    names = list(inspect.signature(original).parameters)

    @functools.wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if not (soft.is_active and soft.count):
            return original(*args, **kwargs)
        inputs = {**dict(zip(names, args, strict=False)), **kwargs}
        is_first = _count_cached(inputs) == 0
        outputs = original(**_prepend(inputs, body, soft, is_first=is_first))
        return _cut(outputs, soft.count) if is_first and not keeps_positions else outputs

    if is_encoder_decoder(model.config):
        # The decoder may attend to the soft tokens as well.
        keeps_positions = True
        whole: Any = model
        whole.get_decoder().register_forward_pre_hook(_widen_mask, with_kwargs=True)
    body.forward = forward


def place_soft_tokens(model: PreTrainedModel, soft: SoftTokens) -> None:
    """Put soft tokens in the place of token ids below 0: -1 is the first, -2 the second.

    While the soft tokens are inactive, these places are hidden from attention.
    """
    body = _find_reader(model)
    original = body.forward
    names = list(inspect.signature(original).parameters)

    @functools.wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        inputs = {**dict(zip(names, args, strict=False)), **kwargs}
        ids = inputs.get("input_ids")
        if ids is None:
            return original(**inputs)
        is_soft = ids < 0
        embeddings = body.get_input_embeddings()(ids.clamp(min=0))
        if soft.is_active:
            vectors = soft.compute().to(embeddings.dtype)[(-1 - ids).clamp(0, soft.count - 1)]
            embeddings = torch.where(is_soft[..., None], vectors, embeddings)
        else:
            mask = inputs.get("attention_mask")
            mask = torch.ones_like(ids) if mask is None else mask
            inputs["attention_mask"] = mask * ~is_soft if mask.shape == ids.shape else mask
        return original(**{**inputs, "input_ids": None, "inputs_embeds": embeddings})

    body.forward = forward


def _find_reader(model: PreTrainedModel) -> Any:
    """Return the module that embeds the input."""
    return model.get_encoder() if is_encoder_decoder(model.config) else model.base_model


def _count_cached(inputs: dict[str, Any]) -> int:
    cache = next((inputs[name] for name in _CACHE_NAMES if inputs.get(name) is not None), None)
    return 0 if cache is None else int(cache.get_seq_length())


def _prepend(inputs: dict[str, Any], body: Any, soft: SoftTokens, *, is_first: bool) -> dict[str, Any]:
    changed = dict(inputs)
    mask = inputs.get("attention_mask")
    if isinstance(mask, torch.Tensor) and mask.ndim == 2:
        changed["attention_mask"] = torch.cat([mask.new_ones(mask.shape[0], soft.count), mask], dim=1)
    positions = inputs.get("position_ids")
    if positions is not None:
        changed["position_ids"] = positions + soft.count
    if not is_first:
        return changed
    embeddings = inputs.get("inputs_embeds")
    if embeddings is None:
        embeddings = body.get_input_embeddings()(inputs["input_ids"])
    rows = embeddings.shape[0]
    vectors = soft.compute().to(embeddings.dtype).expand(rows, -1, -1)
    changed |= {"input_ids": None, "inputs_embeds": torch.cat([vectors, embeddings], dim=1)}
    if positions is not None:
        before = torch.arange(soft.count, device=positions.device).expand(*positions.shape[:-1], -1)
        changed["position_ids"] = torch.cat([before, changed["position_ids"]], dim=-1)
    types = inputs.get("token_type_ids")
    if types is not None:
        changed["token_type_ids"] = torch.cat([types.new_zeros(rows, soft.count), types], dim=1)
    return changed


def _cut(outputs: Any, tokens: int) -> Any:
    """Return a body's outputs without those of the first positions."""
    if isinstance(outputs, tuple):
        return (outputs[0][:, tokens:], *outputs[1:])
    outputs.last_hidden_state = outputs.last_hidden_state[:, tokens:]
    return outputs


def _widen_mask(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    mask, states = kwargs.get("encoder_attention_mask"), kwargs.get("encoder_hidden_states")
    if mask is None or states is None or mask.ndim != 2:
        return None
    missing = states.shape[1] - mask.shape[1]
    widened = torch.cat([mask.new_ones(mask.shape[0], missing), mask], dim=1)
    return args, kwargs | {"encoder_attention_mask": widened}
