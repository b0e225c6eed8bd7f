"""A tiny encoder and rows for it, for tests of what stands around a training; torch is imported if asked."""

import json
from pathlib import Path

import pytest

_WORDS = ("good", "bad", "dull", "lovely", "the", "a", "film", "was", "plot", "story", "very", "and")
_VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, *"0123456789")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny BERT of random weights. Nobody may write into it."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(_VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    vocabulary = {word: index for index, word in enumerate(_VOCABULARY)}
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 90 texts in words that the tiny BERT knows, of three classes."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [
        {
            "text": " ".join(_WORDS[(row * step) % len(_WORDS)] for step in range(3, 9)) + f" {row}",
            "label": ("yes", "no", "maybe")[row % 3],
        }
        for row in range(90)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return path
