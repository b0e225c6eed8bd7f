"""Methods on models that generate: word by word with a cache is what one pass over all words gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedConfig

from lorry_components.methods import METHODS, AdaptedModel
from lorry_registry.manifest import BaseIdentity

_IDENTITY = BaseIdentity(
    model="package:somewhere/model", revision=None, fingerprint="sha256:" + "0" * 64, architecture="any"
)
_NEW = 5


def train_and_restore(
    auto: Any, config: PreTrainedConfig, name: str, options: dict[str, Any], folder: Path
) -> tuple[AdaptedModel, Any, torch.Tensor, torch.Tensor]:
    """Return a restored model, a base like its own, a batch of words, and the trained model's outputs."""
    torch.manual_seed(0)
    auto.from_config(config).save_pretrained(folder / "base")
    task_type = "CAUSAL_LM" if auto is AutoModelForCausalLM else "SEQ_2_SEQ_LM"
    method = METHODS[name](options, task_type)
    assert not list(method.check_base(config))
    model: Any = method.adapt(auto.from_pretrained(folder / "base"), frozenset())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    words = torch.randint(3, 99, (3, 7))
    method.start_training(model, 4)
    for step in range(4):
        model(input_ids=words, attention_mask=torch.ones_like(words), labels=words).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        method.finish_step(model, step + 1)
        optimizer.zero_grad()
    model.eval()
    (folder / "adapter").mkdir()
    method.save(model, folder / "adapter", _IDENTITY)
    restored = METHODS[name](None).restore(
        auto.from_pretrained(folder / "base"), folder / "adapter", frozenset()
    )
    with torch.inference_mode():
        further = {} if task_type == "CAUSAL_LM" else {"decoder_input_ids": words}
        outputs = model(input_ids=words, **further).logits
        assert torch.equal(restored.model(input_ids=words, **further).logits, outputs)
    return restored, auto.from_pretrained(folder / "base").eval(), words, outputs


def generate(model: Any, words: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    mask = torch.ones_like(words) if mask is None else mask
    made: torch.Tensor = model.generate(
        input_ids=words, attention_mask=mask, max_new_tokens=_NEW, min_new_tokens=_NEW, do_sample=False
    )
    return made


_SOFT = [
    ("prompt-tuning", {"tokens": 4}),
    ("p-tuning", {"tokens": 4}),
    ("prelayer", {"tokens": 4}),
    ("p-tuning-v2", {"tokens": 4}),
]
_OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("adapter-h", {}),
    ("lora", {"r": 4}),
    ("adalora", {"r": 4, "target_r": 2}),
    ("ia3", {}),
    ("ft-top", {}),
    ("full", {}),
]


@pytest.mark.parametrize(
    ("name", "options", "style"),
    [
        *((*case, style) for case in (*_SOFT, *_OTHERS) for style in ("gpt2", "llama")),
        *((*case, style) for case in _SOFT for style in ("gemma3", "qwen2")),
    ],
)
def test_words_are_generated_as_they_were_learned(
    tiny_config: Callable[[str], PreTrainedConfig],
    name: str,
    options: dict[str, Any],
    style: str,
    tmp_path: Path,
) -> None:
    restored, base, words, _ = train_and_restore(
        AutoModelForCausalLM, tiny_config(style), name, options, tmp_path
    )
    model = restored.model
    with torch.inference_mode():
        made = generate(model, words)
        # Position by position without a cache. The end of the text is forbidden while words are asked for.
        slow = words
        for _ in range(_NEW):
            scores = model(input_ids=slow, attention_mask=torch.ones_like(slow)).logits[:, -1].clone()
            scores[:, 2] = -torch.inf
            slow = torch.cat([slow, scores.argmax(-1, keepdim=True)], dim=1)
        assert torch.equal(made, slow)
        # Padding on the left, where generation has it.
        padding = torch.zeros(3, 2, dtype=torch.long)
        padded = generate(
            model, torch.cat([padding, words], 1), torch.cat([padding, torch.ones_like(words)], 1)
        )
        assert torch.equal(padded[:, 2:], made)
        with restored.without_adapter():
            assert torch.equal(generate(model, words), generate(base, words))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("full", {}),
        ("ft-top", {}),
        ("adapter-h", {}),
        ("adapter-d", {}),
        ("adapter-l", {}),
        ("lora", {"r": 4, "layers": 1}),
        ("adalora", {"r": 4, "target_r": 2}),
        ("ia3", {}),
        ("vera", {"r": 8}),
        ("prompt-tuning", {"tokens": 4}),
        ("p-tuning", {"tokens": 4, "encoder": "lstm"}),
    ],
)
def test_an_encoder_with_a_decoder_comes_back(
    tiny_config: Callable[[str], PreTrainedConfig], name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    restored, base, words, outputs = train_and_restore(
        AutoModelForSeq2SeqLM, tiny_config("t5"), name, options, tmp_path
    )
    with torch.inference_mode():
        assert generate(restored.model, words).shape == (3, 1 + _NEW)
        plain = base(input_ids=words, decoder_input_ids=words).logits
        assert not torch.equal(outputs, plain)
        with restored.without_adapter():
            assert torch.equal(restored.model(input_ids=words, decoder_input_ids=words).logits, plain)
