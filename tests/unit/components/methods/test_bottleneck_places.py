"""Bottlenecks compute what their papers say, and nothing else of the base is touched.

The references are written from the papers' formulas over the base's own layers, and use the weights that a
method learned. Pfeiffer's is also that of AdapterHub and of the RoBERTa of LoRA's authors, which compute::

    residual = hidden_states                                  # the MLP's output
    hidden_states = LayerNorm(hidden_states + input_tensor)
    hidden_states = adapter(hidden_states) + residual
    hidden_states = LayerNorm(hidden_states + input_tensor)
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from transformers import (
    AutoModel,
    BartConfig,
    MBartConfig,
    OPTConfig,
    PreTrainedConfig,
    RobertaPreLayerNormConfig,
)

from lorry_components.models.blocks import find_layers
from lorry_components.training.setup.model_setup import cast_frozen
from lorry_components.training.setup.precision import Precision
from lorry_registry.manifest import CONFIG_NAME, WEIGHTS_NAME

MakeCase = Callable[..., Any]
_SMALL: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
_TWO: dict[str, Any] = {
    "vocab_size": 99,
    "d_model": 32,
    **{f"{part}_layers": 1 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 64 for part in ("encoder", "decoder")},
}
_OPT = {**_SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32}
OTHERS: dict[str, PreTrainedConfig] = {
    "bart": BartConfig(**_TWO),
    "mbart": MBartConfig(**_TWO),
    "opt": OPTConfig(**_OPT),
    "opt-350m": OPTConfig(**_OPT, do_layer_norm_before=False),
    "roberta-prelayernorm": RobertaPreLayerNormConfig(**_SMALL),
}
POST_NORM = {"bert", "roberta", "distilbert", "deberta-v2", "bart", "opt-350m"}
FAMILIES = (
    "bert",
    "roberta",
    "distilbert",
    "deberta-v2",
    "gpt2",
    "llama",
    "gemma3",
    "modernbert",
    "t5",
    *OTHERS,
)


@pytest.mark.parametrize("style", FAMILIES)
def test_the_norm_of_a_block_is_the_last_that_it_computes(
    tiny_config: Callable[[str], PreTrainedConfig], style: str
) -> None:
    torch.manual_seed(0)
    model = AutoModel.from_config(OTHERS[style] if style in OTHERS else tiny_config(style)).eval()
    _unsettle(model)
    blocks = find_layers(model)
    returned: dict[nn.Module, torch.Tensor] = {}
    for module in model.modules():
        module.register_forward_hook(lambda module, _inputs, outputs: returned.update({module: outputs}))
    words = torch.tensor([[5, 6, 7, 8]])
    decoder = {"decoder_input_ids": words} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        model(input_ids=words, **decoder)
    for block in blocks:
        whole = _first(returned[block.module])
        # A block ends with its norm exactly if what it returns is what a norm returned.
        ends = [
            module
            for module in block.module.modules()
            if getattr(getattr(module, "weight", None), "ndim", 0) == 1
            and torch.equal(_first(returned[module]), whole)
        ]
        assert ends == ([block.output_norm] if style in POST_NORM else [])
        assert (block.output_norm is None) == (style not in POST_NORM)


@pytest.mark.parametrize("style", ["bert", "roberta"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adapter-h", {"activation": "gelu", "train_layer_norms": True}),
        ("adapter-p", {}),
        ("adapter-p", {"placement": "sublayer"}),
        ("adapter-p", {"placement": "block", "train_layer_norms": True}),
        ("adapter-l", {"activation": "gelu"}),
        ("adapter-d", {"drop": 1}),
    ],
    ids=str,
)
def test_an_encoder_computes_what_the_papers_say(
    make_case: MakeCase, style: str, name: str, options: dict[str, Any]
) -> None:
    case = make_case(name, style, size=5, **options).learn()
    body = case.model.base_model
    places = {"adapter-l": "block", "adapter-h": "sublayer"}
    placement = options.get("placement", places.get(name, "sum"))
    with torch.no_grad():
        found = body(**case.batch).last_hidden_state
        expected = _run_encoder(body, case.batch, placement, options.get("activation", "relu"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["adapter-h", "adapter-p", "adapter-l"])
def test_a_decoder_computes_what_the_papers_say(make_case: MakeCase, name: str) -> None:
    case = make_case(name, "gpt2", size=5).learn()
    body = case.model.base_model
    with torch.no_grad():
        found = body(**case.batch).last_hidden_state
        expected = _run_decoder(body, case.batch)
    kept = case.batch["attention_mask"].bool()
    torch.testing.assert_close(found[kept], expected[kept], rtol=0, atol=1e-6)


@pytest.mark.parametrize("placement", ["sublayer", "sum", "block"])
@pytest.mark.parametrize("style", ["bert", "gpt2", "llama", "distilbert", "deberta-v2", "modernbert"])
def test_gradients_reach_what_is_trained_and_nothing_else(
    make_case: MakeCase, style: str, placement: str
) -> None:
    case = make_case("adapter-p", style, placement=placement, train_layer_norms=True)
    case.learn(1)
    before = {name: parameter.detach().clone() for name, parameter in case.model.named_parameters()}
    case.model(**case.batch, labels=case.targets).loss.backward()
    norms = {
        f"{block.name}.{name}"
        for block in find_layers(case.model)
        for name, _ in block.module.named_parameters()
        if ("norm" in name.lower() or ".ln_" in f".{name}") and ".bottleneck." not in name
    }
    assert len(norms) == {"llama": 4, "modernbert": 3}.get(style, 8)
    trained = norms | case.newly_initialized | {name for name in before if ".bottleneck." in name}
    moved = {name for name, parameter in case.model.named_parameters() if parameter.grad is not None}
    assert moved == trained
    assert all(bool(case.model.get_parameter(name).grad.any()) for name in norms)
    case.learn(2)
    changed = {
        name for name, parameter in case.model.named_parameters() if not torch.equal(parameter, before[name])
    }
    assert norms <= changed <= trained


@pytest.mark.parametrize("name", ["adapter-h", "adapter-p", "adapter-d"])
def test_layer_norms_are_saved_and_put_back(make_case: MakeCase, name: str, tmp_path: Path) -> None:
    case = make_case(name, "bert", train_layer_norms=True)
    bare, _ = case.task_type.load_model(case.folder, ["no", "yes"])
    learned = case.learn().compute()
    folder = case.save(tmp_path / "adapter")
    saved = load_file(folder / WEIGHTS_NAME)
    layers = (1,) if name == "adapter-d" else (0, 1)
    assert {key for key in saved if "LayerNorm" in key and "bottleneck" not in key} == {
        f"bert.encoder.layer.{layer}.{part}.LayerNorm.{kind}"
        for layer in layers
        for part in ("attention.output", "output")
        for kind in ("weight", "bias")
    }
    restored = case.restore(folder)
    assert torch.equal(case.compute(restored.model), learned)
    with restored.without_adapter():
        for parameter in (key for key in saved if "bottleneck" not in key and "LayerNorm" in key):
            assert torch.equal(restored.model.get_parameter(parameter), bare.get_parameter(parameter))
    assert torch.equal(case.compute(restored.model), learned)


def test_what_is_stored_says_where_they_are(make_case: MakeCase, tmp_path: Path) -> None:
    placed = {"adapter-h": "sublayer", "adapter-p": "sum", "adapter-l": "block", "adapter-d": "sum"}
    for name, placement in placed.items():
        folder = make_case(name, size=3).save(tmp_path / name)
        stored = json.loads((folder / CONFIG_NAME).read_text("utf-8"))
        assert stored.keys() == {
            *("lorry_method", "base_model_name_or_path", "revision", "size", "activation", "drop"),
            *("placement", "train_layer_norms"),
        }
        assert (stored["placement"], stored["train_layer_norms"]) == (placement, False)


@pytest.mark.parametrize("name", ["adapter-h", "adapter-p", "adapter-l"])
@pytest.mark.parametrize("style", ["bert", "gpt2", "llama"])
def test_half_precision(make_case: MakeCase, name: str, style: str) -> None:
    case = make_case(name, style, train_layer_norms=True).learn()
    whole, gradients = case.compute(), _derive(case)
    cast_frozen(case.model, Precision("bf16", None))
    with torch.autocast("cpu", torch.bfloat16):
        half, half_gradients = case.compute().float(), _derive(case)
    assert all(
        parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16)
        for parameter in case.model.parameters()
    )
    torch.testing.assert_close(half, whole, rtol=0.05, atol=0.05)
    assert functional.cosine_similarity(half_gradients, gradients, dim=0) > 0.99


def _derive(case: Any) -> torch.Tensor:
    """Return the gradients of all that is trained, one after the other."""
    case.model.zero_grad()
    case.model(**case.batch, labels=case.targets).loss.backward()
    return torch.cat([p.grad.flatten() for p in case.model.parameters() if p.requires_grad])


def _run_encoder(body: Any, batch: Any, placement: str, activation: str) -> torch.Tensor:
    """Run BERT's or RoBERTa's layers by hand, with bottlenecks as the papers' formulas have them."""
    states = body.embeddings(batch["input_ids"])
    padding = (1.0 - batch["attention_mask"][:, None, None, :].float()) * torch.finfo(torch.float32).min
    for layer in body.encoder.layer:
        made = layer.attention.self(states, padding)[0]
        made = layer.attention.output.dense.forward(made)
        made = _adapt(made, layer.attention.output.dense, activation)
        after = _normalise(made + states, layer.attention.output.LayerNorm)
        made = layer.output.dense.forward(layer.intermediate(after))
        norm = layer.output.LayerNorm
        if placement == "sublayer":
            states = _normalise(_adapt(made, layer.output.dense, activation) + after, norm)
        elif placement == "sum":
            total = made + after
            read = _normalise(total, norm)
            # Only what the bottleneck adds, without x.
            states = _normalise(total + _adapt(read, norm, activation) - read, norm)
        else:
            states = _adapt(_normalise(made + after, norm), layer, activation)
    return states


def _run_decoder(body: Any, batch: Any) -> torch.Tensor:
    """Run GPT-2's blocks by hand; a bottleneck on a sum is one on what the block returns."""
    words = batch["input_ids"]
    length = words.shape[1]
    states = body.wte(words) + body.wpe(torch.arange(length))
    unseen = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)
    padding = (1.0 - batch["attention_mask"][:, None, None, :].float()) * torch.finfo(torch.float32).min
    for block in body.h:
        width, heads = states.shape[-1], block.attn.num_heads
        queries, keys, values = (
            part.unflatten(-1, (heads, width // heads)).transpose(1, 2)
            for part in block.attn.c_attn(block.ln_1(states)).split(width, dim=-1)
        )
        seen = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=(unseen + padding).clamp(min=torch.finfo(torch.float32).min)
        )
        made = block.attn.c_proj.forward(seen.transpose(1, 2).flatten(-2))
        states = states + _adapt(made, block.attn.c_proj, "relu")
        made = block.mlp.c_proj.forward(block.mlp.act(block.mlp.c_fc(block.ln_2(states))))
        states = _adapt(states + _adapt(made, block.mlp.c_proj, "relu"), block, "relu")
    return _normalise(states, body.ln_f)


def _adapt(states: torch.Tensor, holder: nn.Module, activation: str) -> torch.Tensor:
    """Return x + W_up(activation(W_down(norm(x)))) with the weights of a module's bottleneck, if any."""
    weights = dict(_list_weights(holder))
    if not weights:
        return states
    inner = states
    if "norm.weight" in weights:
        inner = functional.layer_norm(
            inner, inner.shape[-1:], weights["norm.weight"], weights["norm.bias"], 1e-5
        )
    act: Any = getattr(functional, activation)
    down = inner @ weights["down.weight"].T + weights["down.bias"]
    return states + act(down) @ weights["up.weight"].T + weights["up.bias"]


def _list_weights(holder: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in holder.named_parameters():
        if name.startswith("bottleneck."):
            yield name.removeprefix("bottleneck."), parameter


def _normalise(states: torch.Tensor, norm: Any) -> torch.Tensor:
    return functional.layer_norm(states, states.shape[-1:], norm.weight, norm.bias, norm.eps)


def _unsettle(model: nn.Module) -> None:
    """Give layer norms other weights than one, so that one of a norm is no norm again."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower():
                parameter.add_(torch.randn_like(parameter) * 0.3)


def _first(outputs: Any) -> torch.Tensor:
    tensor: torch.Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return tensor
