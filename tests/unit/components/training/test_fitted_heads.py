"""Heads that are fitted to the frozen base: as the beginning of a training, and as a method of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from lorry_components.inference import assemble_adapter
from lorry_components.steps.evaluate.step import evaluate
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.prepare_data.step import load_part
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.feature_cache import FeatureCache
from lorry_registry.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
TASKS = ("classification", "regression", "pair")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("base", ["bert", "gpt2"])
def test_a_probe_is_trained_judged_and_loaded(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], tmp_path: Path, task: str, base: str
) -> None:
    spec = make_spec(task, "probe", base=base)
    resolved, data = resolve_task(spec), tiny_data(task)
    summary = finetune(resolved, data, tmp_path / "candidate", checkpoints=tmp_path / "checkpoints")
    assert (summary.steps, summary.parameters.adapter) == (0, 0)
    assert summary.head is not None
    assert summary.head.place == ("first" if base == "bert" else "last")
    tensors = load_file(tmp_path / "candidate/adapter/adapter_model.safetensors")
    assert sorted(tensors) == ["score.bias", "score.weight"]
    report = evaluate(resolved, data, tmp_path / "candidate", tmp_path / "evaluation", registry=None)
    assert report.evaluation.linear_probe is None


@pytest.mark.parametrize("task", TASKS)
def test_a_training_begins_with_the_probe(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], tmp_path: Path, task: str
) -> None:
    data = tiny_data(task)
    outputs: list[Any] = []
    rows = [example.row for example in load_part(data, "test")]
    settings = {"head": {"pooling": "mean", "init": "probe"}, "train": {"steps": 1, "learning_rate": 1e-9}}
    for name, method, further in (
        ("probe", "probe", {"head": {"pooling": "mean"}}),
        ("lora", "lora", settings),
        ("again", "lora", settings),
    ):
        spec = make_spec(task, method, **{**further, "train": {**further.get("train", {}), "epochs": None}})
        resolved = resolve_task(spec)
        cache = FeatureCache(tmp_path / "features")
        summary = finetune(
            resolved, data, tmp_path / name, checkpoints=tmp_path / f"{name}-checkpoints", features=cache
        )
        predictor = assemble_adapter(
            tmp_path / name / "adapter",
            base=resolved.base,
            task_type=resolved.task_type.hold_pooling(summary.head),
            method=resolved.build_method(),
            labels=summary.labels,
        )
        outputs.append(predictor.compute_outputs(rows))
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-4)
    assert np.array_equal(outputs[1], outputs[2])
