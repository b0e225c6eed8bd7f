"""Gradients are the same accumulated, packed, or with the outputs that count and no others."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, TrainingArguments

from lorry_components.methods import METHODS
from lorry_components.models.dropout_fields import list_dropouts
from lorry_components.task_types import TASK_TYPES, InputForm
from lorry_components.training.kernels.packing import pack
from lorry_components.training.kernels.supervised_logits import compute_next_token_loss
from lorry_components.training.trainer import AdapterTrainer, EncodedExamples
from lorry_registry.tasks.task_spec import TrainSpec

CAUSAL = ["gpt2", "llama", "gemma3_text", "qwen2"]
ROWS = [{"text": f"name[{name}]"} for name in ("Aromi", "Zizzi", "Cotto", "The Eagle")]
# Lengths that differ by far: a mean of means would be another one.
ANSWERS = ["a", "b c", "a very long answer with many more tokens than all the others have", "d"]


class _StopError(Exception):
    """The gradients were seen."""


def compute_gradients(
    folder: Path, style: str, scratch: Path, method: str, *, loss: str = "supervised", **arguments: int
) -> list[torch.Tensor]:
    task_type = TASK_TYPES["text-to-text" if style in ("t5", "bart") else "text-generation"](
        InputForm(max_length=72, max_target=24)
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    still = TrainSpec(hidden_dropout=0.0)
    bare, newly_initialized = task_type.load_model(
        folder, None, **list_dropouts(still, AutoConfig.from_pretrained(folder))
    )
    form = task_type.training_form
    if loss == "whole":
        form = dataclasses.replace(form, loss="token_mean")
    if loss == "packed":
        bare.config.use_cache = False
    torch.manual_seed(0)
    adapter = METHODS[method]({"r": 4} if method == "lora" else {}, task_type.peft_task_type)
    model: Any = adapter.adapt(bare, newly_initialized)
    seen: list[torch.Tensor] = []

    class Watching(AdapterTrainer):
        def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
            optimizer = super().create_optimizer(model)

            def stop(*_: Any) -> None:
                seen.extend(p.grad.clone() for p in self.model.parameters() if p.grad is not None)
                raise _StopError

            optimizer.register_step_pre_hook(stop)
            return optimizer

    trainer = Watching(
        method=adapter,
        scale_learning_rate=adapter.scale_learning_rate,
        form=form,
        model=model,
        args=TrainingArguments(
            output_dir=str(scratch),
            max_steps=1,
            max_grad_norm=0.0,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            label_names=["labels"],
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            **arguments,
        ),
        data_collator=pack if loss == "packed" else task_type.build_collator(tokenizer),
        train_dataset=EncodedExamples(task_type.encode_examples(tokenizer, ROWS, ANSWERS, None)),
    )
    with pytest.raises(_StopError):
        trainer.train()
    assert seen
    return seen


@pytest.mark.parametrize("style", ["gpt2", "llama", "t5", "bart"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_accumulated_batches_are_one_large_batch(
    generator_base: Callable[[str], Path], style: str, method: str, tmp_path: Path
) -> None:
    folder = generator_base(style)
    one = compute_gradients(folder, style, tmp_path, method, per_device_train_batch_size=4)
    many = compute_gradients(
        folder, style, tmp_path, method, per_device_train_batch_size=1, gradient_accumulation_steps=4
    )
    check_same(many, one)


@pytest.mark.parametrize("style", CAUSAL)
@pytest.mark.parametrize("loss", ["supervised", "packed"])
@pytest.mark.parametrize("batch", [4, 2])
def test_the_gradients_are_those_of_all_outputs_of_padded_rows(
    generator_base: Callable[[str], Path], style: str, loss: str, batch: int, tmp_path: Path
) -> None:
    whole, found = (
        compute_gradients(
            generator_base(style),
            style,
            tmp_path,
            "lora",
            loss=way,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=4 // batch,
        )
        for way in ("whole", loss)
    )
    check_same(found, whole)


def check_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    size = max(float(gradient.abs().max()) for gradient in expected)
    assert size > 1e-4
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, atol=1e-4 * size, rtol=1e-3)


@pytest.mark.parametrize("style", CAUSAL)
def test_what_a_method_adds_to_the_loss_is_kept(generator_base: Callable[[str], Path], style: str) -> None:
    task_type = TASK_TYPES["text-generation"](InputForm(max_length=72, max_target=24))
    tokenizer = AutoTokenizer.from_pretrained(generator_base(style))
    batch = task_type.build_collator(tokenizer)(task_type.encode_examples(tokenizer, ROWS, ANSWERS, None))
    losses = []
    for orthogonality in (0.0, 0.5):
        bare, newly_initialized = task_type.load_model(generator_base(style), None)
        torch.manual_seed(0)
        options = {"r": 4, "target_r": 2, "orthogonality": orthogonality}
        model = METHODS["adalora"](options, task_type.peft_task_type).adapt(bare, newly_initialized).eval()
        loss, _ = compute_next_token_loss(model, batch)
        torch.testing.assert_close(loss, model(**batch).loss)
        losses.append(float(loss.detach()))
    assert losses[1] > losses[0] + 0.01


@pytest.mark.parametrize("style", ["gpt2", "gemma3_text"])
@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning-v2", "prelayer"])
def test_soft_tokens_move_no_position(generator_base: Callable[[str], Path], style: str, method: str) -> None:
    task_type = TASK_TYPES["text-generation"](InputForm(max_length=72, max_target=24))
    tokenizer = AutoTokenizer.from_pretrained(generator_base(style))
    batch = task_type.build_collator(tokenizer)(task_type.encode_examples(tokenizer, ROWS, ANSWERS, None))
    bare, newly_initialized = task_type.load_model(generator_base(style), None)
    model = METHODS[method]({"tokens": 5}, task_type.peft_task_type).adapt(bare, newly_initialized).eval()
    loss, outputs = compute_next_token_loss(model, batch)
    torch.testing.assert_close(loss, model(**batch).loss)
    assert outputs.logits.shape[1] == int(batch["labels"].ne(-100).sum())


def test_a_model_with_a_loss_of_its_own_computes_all(generator_base: Callable[[str], Path]) -> None:
    task_type = TASK_TYPES["text-generation"](InputForm(max_length=72, max_target=24))
    tokenizer = AutoTokenizer.from_pretrained(generator_base("gpt2"))
    model: Any = task_type.load_model(generator_base("gpt2"), None)[0]
    batch = task_type.build_collator(tokenizer)(task_type.encode_examples(tokenizer, ROWS, ANSWERS, None))
    model.loss_function = lambda logits, labels, **_: logits.sum() * 0 + labels.numel()
    loss, outputs = compute_next_token_loss(model, batch)
    assert float(loss.detach()) == batch["labels"].numel()
    assert outputs.logits.shape[:2] == batch["labels"].shape


@pytest.mark.parametrize("style", CAUSAL)
def test_only_what_counts_is_computed(generator_base: Callable[[str], Path], style: str) -> None:
    task_type = TASK_TYPES["text-generation"](InputForm(max_length=72, max_target=24))
    tokenizer = AutoTokenizer.from_pretrained(generator_base(style))
    model, _ = task_type.load_model(generator_base(style), None)
    features = task_type.encode_examples(tokenizer, ROWS, ANSWERS, None)
    batch = task_type.build_collator(tokenizer)(features)
    loss, outputs = compute_next_token_loss(model, batch)
    supervised = int(batch["labels"].ne(-100).sum())
    assert outputs.logits.shape[:2] == (1, supervised)
    assert supervised < batch["labels"].numel() / 2
    torch.testing.assert_close(loss, model(**batch).loss)
    nothing = compute_next_token_loss(model, batch | {"labels": torch.full_like(batch["labels"], -100)})[0]
    assert float(nothing.detach()) == 0.0
