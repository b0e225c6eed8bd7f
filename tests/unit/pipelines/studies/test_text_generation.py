"""Grids of a kind that writes text, on a tiny GPT-2: wordings, and targets where q, k and v are one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

NAMES = ("Blue Spice", "The Eagle", "Aromi", "Wildwood", "Zizzi", "Cotto")
END = "<|endoftext|>"
FOODS = ("French", "Indian", "Italian", "Chinese")


@pytest.fixture
def writing_task(task_file: Callable[..., Path], tmp_path: Path) -> Path:
    rows = [
        {"mr": f"name[{name}], food[{food}]", "ref": f"{name} serves {food} food."}
        for name in NAMES
        for food in FOODS
    ]
    source = tmp_path / "meanings.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=350,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for row in rows for text in row.values()], trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **dict.fromkeys(("bos_token", "eos_token"), END)
    )
    folder = tmp_path / "gpt2"
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(wrapped),
        n_positions=96,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return task_file(
        kind="text-generation",
        base={"model": str(folder)},
        data={
            "source": str(source),
            "columns": {"text": "mr", "label": "ref"},
            "max_length": 48,
            "max_target": 8,
        },
        method={"name": "lora", "r": 2},
        evaluate={"metrics": [], "primary": "rouge-l", "resamples": 100},
    )


def test_wordings_of_a_prompt(invoke: Any, writing_task: Path) -> None:
    arguments = ("--grid", "template={text} means: {label},{text}", "--methods", "p-tuning-v2:tokens=3")
    result = invoke("compare", writing_task, *arguments, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [(row["wording"], row["with"], row["trained_parameters"]) for row in rows] == [
        (1, "untrained", 0),
        (1, "p-tuning-v2 tokens=3", 384),
        (2, "untrained", 0),
        (2, "p-tuning-v2 tokens=3", 384),
    ]
    assert all(row["metric"] == "rouge-l" and 0 <= row["value"] <= 1 for row in rows)


def test_a_template_that_is_none_is_refused(invoke: Any, writing_task: Path) -> None:
    arguments = ("--grid", "template={nothing},{text}", "--methods", "p-tuning-v2")
    result = invoke("compare", writing_task, *arguments)
    assert result.exit_code == 3
    assert "1 untrained: data.template" in result.output
    assert "1 p-tuning-v2: data.template" in result.output
    assert "  2 " not in result.output
    assert invoke.ran == []


def test_a_method_that_does_not_fit_is_told_of_what_is_trained(invoke: Any, writing_task: Path) -> None:
    arguments = ("--grid", "template={text}", "--methods", "lora:r=999")
    result = invoke("compare", writing_task, *arguments)
    assert result.exit_code == 3
    assert "1 lora r=999: method.r: rank 999 is above" in result.output
    assert "untrained" not in result.output


def test_targets_where_three_are_one(invoke: Any, writing_task: Path) -> None:
    result = invoke("compare", writing_task, "--grid", "targets=o,qkv,qkvo")
    assert result.exit_code == 0, result.output
    # r=2 on c_attn of two layers, 32 in and 96 out.
    assert "each lora trains at most 512 parameters" in result.output
    assert invoke.ran == [
        "lora targets=o r=4, seed 0",
        "lora targets=qkv r=2, seed 0",
        "lora targets=qkvo r=1, seed 0",
    ]
    refused = invoke("compare", writing_task, "--grid", "targets=qv,o")
    assert refused.exit_code == 3
    assert "none of them can be adapted alone" in refused.output


def test_wordings_of_a_cloze_with_soft_tokens_between(
    invoke: Any, task_file: Callable[..., Path], tmp_path: Path
) -> None:
    words = (
        "paris",
        "lyon",
        "berlin",
        "bonn",
        "rome",
        "turin",
        "france",
        "germany",
        "italy",
        "is",
        "in",
        "lies",
    )
    vocabulary = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *words)
    folder = tmp_path / "bert"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=32, **sizes)
    BertForMaskedLM(config).save_pretrained(folder)
    BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)}).save_pretrained(folder)
    pairs = zip(words[:6], ("france", "france", "germany", "germany", "italy", "italy"), strict=True)
    parts = tmp_path / "facts"
    parts.mkdir()
    rows = "".join(f"{json.dumps({'text': text, 'label': label})}\n" for text, label in pairs)
    for part in ("train", "validation", "test"):
        (parts / f"{part}.jsonl").write_text(rows, "utf-8")
    wordings = tmp_path / "wordings.txt"
    wordings.write_text("[P]*2 {text} [P] is in {label} .\n{text} lies in [P] {label} .\n", "utf-8")
    path = task_file(
        kind="knowledge-probing",
        base={"model": str(folder)},
        data={
            "source": str(parts),
            "split": None,
            "duplicates": "keep",
            "template": "{text} is in {label} .",
            "max_length": 24,
        },
        method={"name": "p-tuning"},
        evaluate={"metrics": [], "resamples": 100},
    )
    result = invoke("compare", path, "--grid", f"template=@{wordings}", "--json")
    assert result.exit_code == 0, result.output
    rows_found = json.loads(result.stdout)
    assert [row["label"] for row in rows_found] == ["1 untrained", "1 p-tuning", "2 untrained", "2 p-tuning"]
    assert {row["metric"] for row in rows_found} == {"p_at_1"}
    # Soft tokens where the wording has them, and the words alone for the base.
    assert rows_found[1]["options"]["template"] == "[P]*2 {text} [P] is in {label} ."
    assert rows_found[3]["options"]["template"] == "{text} lies in [P] {label} ."
    shown = invoke("compare", path, "--grid", f"template=@{wordings}")
    assert "spread over prompts, highest minus lowest: untrained" in shown.output
