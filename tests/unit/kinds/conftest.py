"""Tiny random bases that write text, each with a tokeniser in its family's manner, and rows to learn."""

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MT5Config,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    T5Config,
)
from transformers.utils import logging as transformers_logging

from lorry_registry.task_spec import TaskSpec

NAMES = ("Blue Spice", "The Eagle", "Aromi", "Wildwood", "Zizzi", "Cotto")
FOODS = ("French", "Indian", "Italian", "Chinese")
AREAS = ("riverside", "city centre")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TURNS = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# Name -> its special tokens by role, what it puts around a text, and its chat template.
_STYLES: Mapping[str, dict[str, Any]] = {
    "gpt2": {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"},
    "llama": {"bos_token": "<s>", "eos_token": "</s>", "around": ("<s>", "")},
    "gemma3_text": {
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "bos_token": "<bos>",
        "around": ("<bos>", ""),
        "extra_special_tokens": ["<start_of_turn>", "<end_of_turn>"],
        "chat_template": TURNS,
    },
    "qwen2": {
        "pad_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "extra_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "chat_template": CHATML,
    },
    "t5": {"pad_token": "<pad>", "eos_token": "</s>", "around": ("", "</s>")},
    "mt5": {"pad_token": "<pad>", "eos_token": "</s>", "around": ("", "</s>")},
    "bart": {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "around": ("<s>", "</s>"),
    },
}
CAUSAL = ("gpt2", "llama", "gemma3_text", "qwen2")
SEQ2SEQ = ("t5", "mt5", "bart")
POSITIONS = 96


@pytest.fixture(autouse=True, scope="session")
def quiet_transformers() -> None:
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def write_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Return restaurants as E2E has them: a meaning, and several sentences for it."""
    chance = random.Random(seed)  # noqa: S311
    meanings = [(name, food, area) for name in NAMES for food in FOODS for area in AREAS]
    rows = []
    for name, food, area in chance.sample(meanings, min(count, len(meanings))):
        mr = f"name[{name}], food[{food}], area[{area}]"
        rows.append({"mr": mr, "ref": f"{name} serves {food} food in the {area}.", "near": "Burger King"})
        rows.append({"mr": mr, "ref": f"In the {area}, {name} has {food} food.", "near": "Burger King"})
    return rows


def _build_tokenizer(style: str) -> PreTrainedTokenizerBase:
    options = dict(_STYLES[style])
    before, after = options.pop("around", ("", ""))
    special = [*(value for key, value in options.items() if key.endswith("_token"))]
    special += options.get("extra_special_tokens", [])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [text for row in write_rows(48) for text in (row["mr"], row["ref"])]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(dict.fromkeys(special)),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    if before or after:
        ends = [(token, tokenizer.token_to_id(token)) for token in (before, after) if token]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join(part for part in (before, "$A", after) if part), special_tokens=ends
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)


def _build_config(style: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": POSITIONS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    stacks: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 2,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }
    builders: Mapping[str, Callable[[], PreTrainedConfig]] = {
        "gpt2": lambda: GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=POSITIONS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
        "llama": lambda: LlamaConfig(**sizes, num_key_value_heads=1),
        "gemma3_text": lambda: Gemma3TextConfig(
            **sizes, num_key_value_heads=1, head_dim=16, sliding_window=8, query_pre_attn_scalar=16
        ),
        "qwen2": lambda: Qwen2Config(**sizes, num_key_value_heads=1),
        "t5": lambda: T5Config(**stacks),
        "mt5": lambda: MT5Config(**stacks),
        "bart": lambda: BartConfig(
            vocab_size=len(tokenizer),
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=POSITIONS,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.eos_token_id,
            forced_eos_token_id=None,
        ),
    }
    return builders[style]()


def save_base(folder: Path, style: str) -> Path:
    """Write a base of random weights with its output layer and its tokeniser."""
    tokenizer = _build_tokenizer(style)
    torch.manual_seed(0)
    auto: Any = AutoModelForCausalLM if style in CAUSAL else AutoModelForSeq2SeqLM
    auto.from_config(_build_config(style, tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from a family to the folder of a base, which nobody may write into."""
    root = tmp_path_factory.mktemp("bases")

    def find(style: str) -> Path:
        return root / style if (root / style).is_dir() else save_base(root / style, style)

    return find


@pytest.fixture(scope="session")
def make_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from a family to the folder of a base of the test's own."""
    return lambda style: save_base(tmp_path_factory.mktemp("own") / style, style)


@pytest.fixture(scope="session")
def find_tokenizer(tiny_base: Callable[[str], Path]) -> Callable[[str], PreTrainedTokenizerBase]:
    def find(style: str) -> PreTrainedTokenizerBase:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_base(style))
        return tokenizer

    return find


@pytest.fixture(scope="session")
def restaurants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "restaurants.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in write_rows(48)), "utf-8")
    return path


MakeSpec = Callable[..., TaskSpec]


@pytest.fixture(scope="session")
def make_spec(tiny_base: Callable[[str], Path], restaurants: Path) -> MakeSpec:
    """Return a function that writes a task on restaurants down; sections given are laid over it."""

    def make(style: str = "gpt2", method: str | dict[str, Any] = "lora", **sections: Any) -> TaskSpec:
        is_causal = style in CAUSAL
        document: dict[str, Any] = {
            "name": f"tiny-{style.replace('_', '-')}",
            "kind": "text-generation" if is_causal else "text-to-text",
            "base": {"model": str(tiny_base(style))},
            "data": {
                "source": str(restaurants),
                "columns": {"text": "mr", "label": "ref"},
                "split": {"validation": 0.15, "test": 0.2, "seed": 1},
                "max_length": 72,
                "max_target": 24,
            },
            "method": {"name": method} if isinstance(method, str) else method,
            "train": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-2, "precision": "fp32"},
            "evaluate": {"resamples": 100},
        }
        for name, given in sections.items():
            former = document.get(name)
            document[name] = former | given if isinstance(former, dict) else given
        return TaskSpec.model_validate(document)

    return make
