"""What the meta device says is what a real forward pass keeps."""

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from lorry_components.memory.activations import Activations, measure_activations
from lorry_components.methods import METHODS

FRESH = frozenset({"classifier.weight", "classifier.bias"})


def _build(device: str, attention: str, method: str, dropout: float) -> Any:
    config = BertConfig(
        vocab_size=200,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=128,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,
    )
    with torch.device(device):
        model = BertForSequenceClassification._from_config(config, attn_implementation=attention)
        return METHODS[method]({}, "SEQ_CLS").adapt(model, FRESH)


def _measure(device: str, attention: str, method: str, dropout: float = 0.1) -> Activations:
    return measure_activations(_build(device, attention, method, dropout), rows=8, tokens=48)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("method", ["full", "lora", "p-tuning"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_meta_keeps_what_a_processor_keeps(attention: str, method: str, dropout: float) -> None:
    planned = _measure("meta", attention, method, dropout)
    measured = _measure("cpu", attention, method, dropout)
    assert planned.kept == pytest.approx(measured.kept, rel=0.02)
    assert planned.logits == measured.logits
    assert planned.layers == measured.layers == 3


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_autocast_keeps_between_the_shares_that_are_planned_with(attention: str) -> None:
    from lorry_components.memory.estimates import HALF_PRECISION

    model = _build("cpu", attention, "full", 0.1)
    full = measure_activations(model, rows=8, tokens=48)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = measure_activations(model, rows=8, tokens=48)
    low, high = HALF_PRECISION
    assert low <= half.kept / full.kept <= high


def test_checkpointing_is_what_transformers_keeps_with_it() -> None:
    """Its own checkpointing keeps the layers' inputs; the layer that is computed again comes on top."""
    plain = _measure("cpu", "eager", "full", 0.0)
    model = _build("cpu", "eager", "full", 0.0)
    model.activation_checkpointing_enable()
    checkpointed = measure_activations(model, rows=8, tokens=48)
    assert checkpointed.kept + plain.largest_layer == pytest.approx(plain.checkpointed, rel=0.15)
    assert plain.checkpointed < 0.6 * plain.kept


def test_fused_attention_on_a_gpu_keeps_no_scores() -> None:
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    with torch.device("meta"):
        model = BertForSequenceClassification._from_config(config, attn_implementation="sdpa")
    short, long = (
        measure_activations(model, rows=1, tokens=tokens, on_cuda=True).kept for tokens in (64, 512)
    )
    assert long < 9 * short
    assert measure_activations(model, rows=1, tokens=512).kept > 2 * long


def test_the_model_is_left_as_it_was() -> None:
    model = _build("meta", "eager", "full", 0.0)
    model.train(mode=False)
    measure_activations(model, rows=1, tokens=4)
    assert not model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
