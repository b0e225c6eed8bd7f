"""Plans of tasks that write text: the output is as wide as the vocabulary, at every position."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    T5Config,
)

from lorry_components.memory import describe_plan, plan_task
from lorry_components.memory.activations import measure_activations, measure_cache
from lorry_components.memory.upper_bounds import bound_training
from lorry_components.models.configuration import read_configuration
from lorry_components.tasks.definition import find_task_type
from lorry_components.training.kernels.supervised_logits import compute_next_token_loss
from lorry_registry.tasks.task_spec import TaskSpec

ROWS, TOKENS, TARGET, VOCABULARY = 4, 24, 8, 2000
_SIZES: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}
_SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
_STACKS: dict[str, Any] = {"vocab_size": VOCABULARY, "d_model": 32, "decoder_start_token_id": 0}
CONFIGS: Mapping[str, Callable[[], PreTrainedConfig]] = {
    "gpt2": lambda: GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "llama": lambda: LlamaConfig(**_SIZES, max_position_embeddings=64),
    "gemma3_text": lambda: Gemma3TextConfig(**_SIZES, max_position_embeddings=64, head_dim=16),
    "t5": lambda: T5Config(**_STACKS, d_kv=8, d_ff=64, num_layers=2, num_heads=4),
    "bart": lambda: BartConfig(
        **_STACKS,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
    ),
}
APART = ("t5", "bart")


def make_spec(style: str, folder: Path, method: str = "lora", **train: Any) -> TaskSpec:
    CONFIGS[style]().save_pretrained(folder)
    return TaskSpec.model_validate(
        {
            "name": "writes",
            "kind": "text-to-text" if style in APART else "text-generation",
            "base": {"model": str(folder)},
            "data": {"source": "rows.jsonl", "max_length": TOKENS, "max_target": TARGET},
            "method": {"name": method},
            "train": {"steps": 1, "batch_size": ROWS, "precision": "fp32"} | train,
        }
    )


def list_parts(estimate: Mapping[str, Any]) -> dict[str, int]:
    return {part["name"]: part["high_bytes"] for part in estimate["parts"]}


@pytest.mark.parametrize("style", CONFIGS)
def test_logits_are_of_the_positions_of_the_answer(style: str, tmp_path: Path) -> None:
    plan = describe_plan(plan_task(make_spec(style, tmp_path)))
    assert list_parts(plan["training"])["logits"] == 2 * 4 * ROWS * TARGET * VOCABULARY
    # Predicting needs those of one position for each of 64 texts at once.
    assert list_parts(plan["inference"])["logits"] == 4 * 64 * VOCABULARY
    assert list_parts(plan["inference"])["keys and values"] > 0
    assert plan["parameters"]["head"] == 0
    assert 0 < plan["parameters"]["adapter"] < plan["parameters"]["total"]


@pytest.mark.parametrize("style", CONFIGS)
def test_activations_are_those_of_the_real_pass(style: str, tmp_path: Path) -> None:
    spec = make_spec(style, tmp_path, "full", attention_dropout=0.0, hidden_dropout=0.0)
    plan = plan_task(spec)
    torch.manual_seed(0)
    auto: Any = AutoModelForSeq2SeqLM if style in APART else AutoModelForCausalLM
    config = CONFIGS[style]()
    for name in ("dropout", "dropout_rate", "resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    model = auto.from_config(config, attn_implementation="eager")
    if style in APART:
        kept = measure_activations(model, rows=ROWS, tokens=TOKENS, target_tokens=TARGET).kept
    else:
        kept = measure_real_loss(model)
    high = next(part.high for part in plan.training.parts if part.name == "activations")
    assert high == pytest.approx(kept, rel=0.03)


def measure_real_loss(model: Any) -> int:
    """Return the bytes that training keeps of a batch whose last tokens are an answer."""
    words = torch.zeros((ROWS, TOKENS), dtype=torch.long)
    labels = words.clone()
    labels[:, : TOKENS - TARGET] = -100
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compute_next_token_loss(model.train(), {"input_ids": words, "labels": labels})
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    return sum(storage.nbytes() for key, storage in kept.items() if key not in own)


@pytest.mark.parametrize("style", CONFIGS)
def test_keys_and_values_are_those_of_a_real_cache(style: str) -> None:
    config = CONFIGS[style]()
    auto: Any = AutoModelForSeq2SeqLM if style in APART else AutoModelForCausalLM
    model = auto.from_config(config)
    words = torch.ones((ROWS, TOKENS), dtype=torch.long)
    further = {"decoder_input_ids": words[:, :TARGET]} if style in APART else {}
    with torch.inference_mode():
        outputs = model(input_ids=words, use_cache=True, **further)
    found = outputs.get("past_key_values", outputs.get("cache"))
    held = 0
    for cache in (found.self_attention_cache, found.cross_attention_cache) if style in APART else (found,):
        held += sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    tokens = TOKENS + TARGET if style in APART else TOKENS
    assert measure_cache(config, rows=ROWS, tokens=tokens) == held


@pytest.mark.parametrize("style", CONFIGS)
@pytest.mark.parametrize("method", ["full", "lora", "adapter-h"])
def test_the_bound_is_above_the_plan(style: str, method: str, tmp_path: Path) -> None:
    spec = make_spec(style, tmp_path, method)
    bound = bound_training(spec, read_configuration(spec.base).values)
    assert bound is not None
    assert bound >= plan_task(spec).training.high
    assert find_task_type(spec).data_form.label_form == "text"
