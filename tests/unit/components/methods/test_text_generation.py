"""Every method on every family that writes text: it learns, comes back bit for bit, and generates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

from lorry_components.methods import METHODS
from lorry_components.task_types import TASK_TYPES, InputForm
from lorry_registry.manifest import BaseIdentity

IDENTITY = BaseIdentity(
    model="package:somewhere/model", revision=None, fingerprint="sha256:" + "0" * 64, architecture="any"
)
ROWS = [{"text": "name[Aromi], food[French]"}, {"text": "x"}, {"text": "name[The Eagle], area[riverside]"}]
ANSWERS = ["Aromi serves French food.", "y", "The Eagle is by the river."]
OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4},
    "adalora": {"r": 4, "target_r": 2},
    "vera": {"r": 8},
    "ft-top": {"layers": 1},
    "adapter-h": {"size": 4},
    "p-tuning-v2": {"tokens": 4},
    "prompt-tuning": {"tokens": 4},
    "p-tuning": {"tokens": 4},
    "prelayer": {"tokens": 4},
    "peft": {"type": "LOHA", "r": 4, "alpha": 8},
}
# qlora needs a library that is not installed everywhere, and has tests of its own.
TRIED = sorted(METHODS.keys() - {"qlora", "probe"})
CAUSAL, SEQ2SEQ = ("gpt2", "llama", "gemma3_text", "qwen2"), ("t5", "mt5", "bart")


def list_cases() -> list[Any]:
    return [(style, name) for style in (*CAUSAL, *SEQ2SEQ) for name in TRIED]


@pytest.mark.parametrize(("style", "name"), list_cases())
def test_a_method_learns_comes_back_and_generates(
    generator_base: Callable[[str], Path], style: str, name: str, tmp_path: Path
) -> None:
    folder = generator_base(style)
    task_type: Any = TASK_TYPES["text-to-text" if style in SEQ2SEQ else "text-generation"](
        InputForm(max_length=48, max_target=8)
    )
    options = OPTIONS.get(name, {})
    if name == "peft":
        options = options | {"target_modules": "all-linear"}
    method = METHODS[name](options, task_type.peft_task_type)
    config = AutoConfig.from_pretrained(folder)
    assert list(task_type.check_base(config)) == []
    if faults := list(method.check_base(config)):
        assert (style, name) in REFUSED, faults
        return
    assert (style, name) not in REFUSED
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    bare, newly_initialized = task_type.load_model(folder, None)
    model: Any = method.adapt(bare, newly_initialized)
    losses = learn(task_type, tokenizer, method, model)
    assert losses[-1] < losses[0]
    method.save(model, tmp_path, IDENTITY)

    torch.manual_seed(99)
    again, newly_initialized = task_type.load_model(folder, None)
    restored = METHODS[name](None, task_type.peft_task_type).restore(again, tmp_path, newly_initialized)
    outputs = compute(task_type, restored.model, tokenizer)
    np.testing.assert_array_equal(outputs, compute(task_type, model.eval(), tokenizer))
    base, _ = task_type.load_model(folder, None)
    plain = compute(task_type, base.eval(), tokenizer)
    assert np.abs(outputs - plain).max() > 1e-4
    with restored.without_adapter():
        np.testing.assert_allclose(compute(task_type, restored.model, tokenizer), plain, atol=1e-5)
    assert predict(task_type, restored.model, tokenizer) == [
        write_slowly(task_type, restored.model, tokenizer, row) for row in ROWS
    ]


def learn(task_type: Any, tokenizer: Any, method: Any, model: Any, steps: int = 4) -> list[float]:
    batch = task_type.build_collator(tokenizer)(task_type.encode_examples(tokenizer, ROWS, ANSWERS, None))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    method.start_training(model, steps)
    losses = []
    # Without dropout, or the loss of so few steps would say little.
    model.eval()
    for step in range(steps):
        loss = model(**batch).loss
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        method.finish_step(model, step + 1)
        optimizer.zero_grad()
    return losses


def compute(task_type: Any, model: Any, tokenizer: Any) -> np.ndarray[Any, Any]:
    outputs: np.ndarray[Any, Any] = task_type.compute_outputs(
        model, tokenizer, ROWS, None, lambda _done: None
    )
    return outputs


def predict(task_type: Any, model: Any, tokenizer: Any) -> list[str]:
    return [found["text"] for found in task_type.predict(model, tokenizer, ROWS, None, lambda _done: None)]


def write_slowly(task_type: Any, model: Any, tokenizer: Any, row: dict[str, str]) -> str:
    """Return the likeliest tokens, one after the other, without a cache, a batch, or padding."""
    writer = task_type.build_writer(tokenizer)
    (prompt,) = writer.encode_prompts([row])
    made: list[int] = []
    with torch.inference_mode():
        while len(made) < task_type.form.max_target and not (made and made[-1] in writer.stops):
            inputs = torch.tensor([[*prompt, *made] if task_type.continues else prompt])
            arguments = {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}
            if not task_type.continues:
                start = model.config.decoder_start_token_id
                arguments["decoder_input_ids"] = torch.tensor([[start, *made]])
            made.append(int(model(**arguments).logits[0, -1].argmax()))
    text: str = writer.decode_answer(made)
    return text


# What cannot work says so before anything is loaded.
REFUSED = {
    # PEFT has no LoHa for GPT-2's Conv1D.
    ("gpt2", "peft"),
    *((style, "bitfit") for style in ("llama", "gemma3_text", "t5", "mt5")),
    *((style, name) for style in SEQ2SEQ for name in ("p-tuning-v2", "prelayer")),
}
