"""Tiny random bases of many families, and methods that take three steps on them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedConfig,
    Qwen2Config,
    RobertaConfig,
    T5Config,
)
from transformers.utils import logging as transformers_logging

from lorry_components.methods import METHODS, AdaptedModel, Method
from lorry_components.task_types import TASK_TYPES, InputForm, TaskType
from lorry_registry.manifest import BaseIdentity

IDENTITY = BaseIdentity(
    model="package:somewhere/model", revision=None, fingerprint="sha256:" + "0" * 64, architecture="any"
)
_SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
    "pad_token_id": 0,
}
_WORDS = {"bos_token_id": 1, "eos_token_id": 2}
CONFIGS: Mapping[str, Callable[[], PreTrainedConfig]] = {
    "bert": lambda: BertConfig(**_SIZES),
    "roberta": lambda: RobertaConfig(**_SIZES, type_vocab_size=1),
    "gpt2": lambda: GPT2Config(
        vocab_size=99, n_embd=32, n_layer=2, n_head=2, n_positions=66, pad_token_id=0, **_WORDS
    ),
    "llama": lambda: LlamaConfig(**_SIZES, num_key_value_heads=1, **_WORDS),
    "qwen2": lambda: Qwen2Config(**_SIZES, num_key_value_heads=1, **_WORDS),
    "gemma3": lambda: Gemma3TextConfig(
        **_SIZES, num_key_value_heads=1, head_dim=16, sliding_window=32, **_WORDS
    ),
    "deberta-v2": lambda: DebertaV2Config(
        **_SIZES, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8
    ),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=99, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=66
    ),
    "modernbert": lambda: ModernBertConfig(**_SIZES, cls_token_id=1, sep_token_id=2, **_WORDS),
    "t5": lambda: T5Config(
        vocab_size=99, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0
    ),
}


@pytest.fixture(autouse=True, scope="session")
def quiet_transformers() -> None:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@pytest.fixture(scope="session")
def tiny_config() -> Callable[[str], PreTrainedConfig]:
    return lambda style: CONFIGS[style]()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from a family to the folder of a base, which nobody may write into."""
    root = tmp_path_factory.mktemp("bases")

    def find(style: str) -> Path:
        if not (root / style).exists():
            torch.manual_seed(0)
            AutoModel.from_config(CONFIGS[style]()).save_pretrained(root / style)
        return root / style

    return find


@dataclass
class Case:
    """A base with a method on it, and a batch with padding."""

    folder: Path
    task_type: TaskType
    method: Method
    model: nn.Module
    newly_initialized: frozenset[str]
    batch: Mapping[str, torch.Tensor]
    targets: torch.Tensor

    def learn(self, steps: int = 3) -> "Case":
        optimizer = torch.optim.AdamW(
            [parameter for parameter in self.model.parameters() if parameter.requires_grad], lr=0.01
        )
        self.model.train()
        self.method.start_training(self.model, steps)
        for step in range(steps):
            self.model(**self.batch, labels=self.targets).loss.backward()
            optimizer.step()
            self.method.finish_step(self.model, step + 1)
            optimizer.zero_grad()
        self.model.eval()
        return self

    def save(self, folder: Path) -> Path:
        folder.mkdir()
        self.method.save(self.model, folder, IDENTITY)
        return folder

    def restore(self, folder: Path) -> AdaptedModel:
        torch.manual_seed(99)
        bare, newly_initialized = self.task_type.load_model(
            self.folder, ["no", "yes"], **self.method.list_load_options()
        )
        return METHODS[self.method.name](None).restore(bare, folder, newly_initialized)

    def compute(self, model: nn.Module | None = None) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = (model or self.model)(**self.batch).logits
        return logits


MakeCase = Callable[..., Case]


@pytest.fixture
def make_case(tiny_base: Callable[[str], Path]) -> MakeCase:
    def make(name: str, style: str = "bert", **options: Any) -> Case:
        # First, for it may draw random numbers.
        folder = tiny_base(style)
        task_type = TASK_TYPES["text-classification"](InputForm(max_length=32))
        method = METHODS[name](options, task_type.peft_task_type)
        torch.manual_seed(1)
        bare, newly_initialized = task_type.load_model(folder, ["no", "yes"])
        words = torch.randint(3, 99, (4, 8))
        mask = torch.ones_like(words)
        words[1, 5:] = mask[1, 5:] = 0
        batch = {"input_ids": words, "attention_mask": mask}
        model = method.adapt(bare, newly_initialized)
        return Case(folder, task_type, method, model, newly_initialized, batch, torch.tensor([0, 1, 1, 0]))

    return make
