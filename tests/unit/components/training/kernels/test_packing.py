"""Packed sequences do not see each other, in every family of bases that may be packed."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from lorry_components.task_types import TASK_TYPES, InputForm
from lorry_components.task_types.generation.text_generation import PACKABLE
from lorry_components.training.kernels.packing import pack

VOCABULARY = 60
# The names that families have for the sizes of a model; what a family does not have is ignored.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "embed_dim", "ffn_dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "num_kv_heads"), 4),
    **dict.fromkeys(("intermediate_size", "n_inner"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0),
    "vocab_size": VOCABULARY,
    "head_dim": 8,
    "rotary_dim": 4,
    "num_key_value_heads": 2,
    "use_cache": False,
    "sliding_window": 8,
    # Large, so that what a token sees shows in what it says.
    **dict.fromkeys(("initializer_range", "init_std"), 0.3),
}
OWN: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "falcon": {"head_dim": None, "alibi": False},
}


def build(family: str) -> PreTrainedModel:
    config = AutoConfig.for_model(family)
    fields = SIZES | OWN.get(family, {})
    known = {name: value for name, value in fields.items() if hasattr(config, name) and value is not None}
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        type(config)(**known), attn_implementation="eager"
    )
    return model.eval()


def draw_sequences() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    lengths = (7, 12, 1, 10)
    rows = [torch.randint(1, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    return [{"input_ids": row, "labels": row} for row in rows]


def measure_difference(model: PreTrainedModel) -> float:
    """Return how far the outputs of packed sequences are from those of each alone."""
    rows = draw_sequences()
    packed = pack(rows)
    with torch.no_grad():
        together = model(input_ids=packed["input_ids"], position_ids=packed["position_ids"]).logits[0]
        apart = [model(input_ids=torch.tensor([row["input_ids"]])).logits[0] for row in rows]
    return float((together - torch.cat(apart)).abs().max())


@pytest.mark.parametrize("family", sorted(PACKABLE))
def test_sequences_do_not_see_each_other(family: str) -> None:
    model = build(family)
    assert model.config.model_type == family
    assert measure_difference(model) < 1e-5


def refuse(config: PreTrainedConfig) -> list[str]:
    task_type = TASK_TYPES["text-generation"](InputForm(max_length=32))
    return [fault.advice for fault in task_type.check_packing(config)]


def test_a_family_in_which_they_would_is_refused() -> None:
    leaking = build("opt")
    assert measure_difference(leaking) > 1e-2
    assert "would let packed sequences see each other" in refuse(leaking.config)[0]


def test_a_bias_by_distance_is_refused() -> None:
    config = AutoConfig.for_model("falcon", alibi=True)
    assert "would let packed sequences see each other" in refuse(config)[0]
    assert refuse(AutoConfig.for_model("falcon", alibi=False)) == []
