"""Methods inside the trainer: learning rates of their own, state in checkpoints, exact resumption."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from lorry_components.task_types.training_form import TrainingForm
from lorry_components.training.checkpoints.checkpoint_files import find_checkpoint
from lorry_components.training.trainer import AdapterTrainer, EncodedExamples
from lorry_registry.errors import TrainingError
from lorry_registry.manifest import WEIGHTS_NAME

MakeCase = Callable[..., Any]
STEPS = 8


class _StopError(Exception):
    """The training was killed."""


def build_trainer(case: Any, folder: Path) -> AdapterTrainer:
    rows = [
        {
            "input_ids": list(range(3, 9 + index)),
            "attention_mask": [1] * (6 + index),
            "labels": index % 2,
        }
        for index in range(8)
    ]
    return AdapterTrainer(
        method=case.method,
        scale_learning_rate=case.method.scale_learning_rate,
        form=TrainingForm(),
        model=case.model,
        args=TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=1,
            max_steps=STEPS,
            learning_rate=1e-2,
            save_steps=5,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
            label_names=["labels"],
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        ),
        train_dataset=EncodedExamples(rows),
    )


def read_weights(case: Any, folder: Path) -> bytes:
    return bytes((case.save(folder) / WEIGHTS_NAME).read_bytes())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adalora", {"r": 4, "target_r": 1, "interval": 1, "warmup": 0.0, "final": 0.25}),
        ("lora", {"r": 4, "lora_plus_ratio": 8, "dropout": 0.1}),
        ("lora", {"r": 4, "init": "pissa"}),
        ("adapter-h", {"train_layer_norms": True}),
        ("adapter-p", {}),
        ("p-tuning-v2", {"tokens": 3, "projection": True}),
        ("prelayer", {"tokens": 3}),
        ("p-tuning", {"tokens": 3, "encoder": "lstm", "dropout": 0.1}),
        ("bitfit", {}),
        ("vera", {"r": 8}),
    ],
)
def test_a_resumed_training_ends_as_one_that_never_stopped(
    make_case: MakeCase, name: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = make_case(name, **options)
    build_trainer(alone, tmp_path / "alone").train()
    expected = read_weights(alone, tmp_path / "alone-adapter")

    killed = make_case(name, **options)
    original = type(killed.method).finish_step

    def finish_step(method: Any, model: Any, step: int) -> None:
        original(method, model, step)
        if step == 7:
            raise _StopError

    with monkeypatch.context() as patch:
        patch.setattr(type(killed.method), "finish_step", finish_step)
        with pytest.raises(_StopError):
            build_trainer(killed, tmp_path / "killed").train()

    resumed = make_case(name, **options)
    checkpoint = find_checkpoint(tmp_path / "killed")
    assert checkpoint is not None
    assert (checkpoint / "method.safetensors").exists() == (name == "adalora")
    build_trainer(resumed, tmp_path / "killed").train(resume_from_checkpoint=str(checkpoint))
    assert read_weights(resumed, tmp_path / "resumed-adapter") == expected


def test_adalora_ends_with_the_rank_that_was_asked_for(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case("adalora", r=4, target_r=1, interval=1, warmup=0.0, final=0.25)
    build_trainer(case, tmp_path / "checkpoints").train()
    values = [parameter for name, parameter in case.model.named_parameters() if "lora_E" in name]
    assert sum(int((value != 0).sum()) for value in values) == 1 * len(values)
    assert case.model.peft_config["default"].total_step == STEPS
    # Masked values come back as the zeros they are, so that not a bit differs.
    restored = case.restore(case.save(tmp_path / "adapter"))
    case.model.eval()
    assert torch.equal(case.compute(restored.model), case.compute())


def test_lora_plus_learns_b_faster(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case("lora", r=4, lora_plus_ratio=16)
    trainer = build_trainer(case, tmp_path)
    optimizer = trainer.create_optimizer()
    rates = {
        name: group["lr"]
        for group in optimizer.param_groups
        for name, parameter in case.model.named_parameters()
        if any(parameter is other for other in group["params"])
    }
    trained = {name for name, parameter in case.model.named_parameters() if parameter.requires_grad}
    assert rates.keys() == trained
    assert all(rate == pytest.approx(0.16 if "lora_B" in name else 0.01) for name, rate in rates.items())
    # Asked again, it hands out the same optimiser and does not multiply twice.
    assert trainer.create_optimizer() is optimizer
    assert sorted({group["lr"] for group in optimizer.param_groups}) == pytest.approx([0.01, 0.16])


def test_adalora_needs_steps_to_tell_ranks_apart(make_case: MakeCase) -> None:
    case = make_case("adalora", r=4, target_r=2)
    with pytest.raises(TrainingError, match="1 steps are too few"):
        case.method.start_training(case.model, 1)
    case.method.start_training(case.model, 2)
