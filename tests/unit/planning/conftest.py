"""A tiny base with real weights, tasks on it, and the lecture's rows, which take seconds, computed once."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer
from transformers.utils import logging as transformers_logging

from lorry_components.planning.lecture import LectureRow, list_lecture_rows
from lorry_registry.task_spec import TaskSpec

WORDS = ("good", "bad", "dull", "lovely", "the", "a", "film", "was", "plot", "story", "very", "and")
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"0123456789")
MakeSpec = Callable[..., TaskSpec]


@pytest.fixture(autouse=True, scope="session")
def quiet_transformers() -> None:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("mlflow").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    vocabulary = {word: index for index, word in enumerate(VOCABULARY)}
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "rows.jsonl"
    labels = ("yes", "no", "maybe")
    rows = [
        {
            "text": " ".join(WORDS[(row * step) % len(WORDS)] for step in range(3, 9)) + f" {row}",
            "label": labels[row % 3],
        }
        for row in range(60)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="session")
def make_spec(tiny_base: Path, tiny_source: Path) -> MakeSpec:
    """Return a function that writes a classification down; sections that are given are laid over it."""

    def make(method: Mapping[str, Any] | None = None, **sections: Any) -> TaskSpec:
        document: dict[str, Any] = {
            "name": "tiny",
            "kind": "text-classification",
            "base": {"model": str(tiny_base)},
            "data": {"source": str(tiny_source), "split": {"validation": 0.2, "test": 0.2}, "max_length": 32},
            "method": method or {"name": "lora", "r": 4, "targets": ["query", "value"]},
            "train": {"steps": 1, "batch_size": 8, "precision": "fp32"},
        }
        for name, given in sections.items():
            document[name] = document.get(name, {}) | given if isinstance(given, dict) else given
        return TaskSpec.model_validate(document)

    return make


@pytest.fixture(scope="session")
def lecture_rows() -> dict[str, LectureRow]:
    return {row.name: row for row in list_lecture_rows()}
