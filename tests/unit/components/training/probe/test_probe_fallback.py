"""Soft tokens that end worse than the base without them: the adapter has none and is the probe."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from lorry_components.inference import load_adapter
from lorry_components.steps.evaluate.step import evaluate
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.gate.step import Decision
from lorry_components.steps.prepare_data.step import load_card, load_part
from lorry_components.steps.register.step import register
from lorry_components.tasks.resolution import ResolvedTask, resolve_task
from lorry_components.training.distributed.process_group import ALONE
from lorry_components.training.probe.head_fitting import FittedHead
from lorry_components.training.probe.linear_probe import LinearProbe, find_output_layer
from lorry_components.training.probe.probe_fallback import give_up_worse_end
from lorry_components.training.setup.model_setup import Setup, set_up
from lorry_registry.errors import TrainingError
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
METHODS = ("prompt-tuning", "p-tuning", "p-tuning-v2", "prelayer")
HEAD = {"pooling": "mean", "init": "probe", "learning_rate": 0.5}
# At such a rate the weights are thrown about.
RUINED = {"epochs": None, "steps": 4, "learning_rate": 0.5}


@pytest.fixture
def _any_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up every training: what comes of it does not depend on how bad a tiny model becomes."""
    monkeypatch.setattr("lorry_components.training.probe.probe_fallback._CHANCE", 1.0)


def register_trained(task: ResolvedTask, data: Path, folder: Path) -> tuple[Any, Path]:
    """Train, judge and register; return the training's summary and the adapter's folder."""
    summary = finetune(task, data, folder / "candidate", checkpoints=folder / "checkpoints")
    report = evaluate(task, data, folder / "candidate", folder / "evaluation", registry=None)
    registry = Registry(LocalStore(folder / "store"), folder / "cache")
    passed = Decision(passed=True, reasons=(), judged_champion=None)
    registration = register(
        task, folder / "candidate", report, passed, registry=registry, index=None, details={}
    )
    return summary, registry.fetch(registration.event.adapter_id)


@pytest.mark.usefixtures("_any_end_is_given_up")
@pytest.mark.parametrize("data_set", ["classification", "regression", "pair"])
@pytest.mark.parametrize("method", METHODS)
def test_a_training_that_is_given_up_ends_as_the_probe(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], tmp_path: Path, method: str, data_set: str
) -> None:
    data = tiny_data(data_set)
    task = resolve_task(make_spec(data_set, method, head=HEAD, train=RUINED))
    alone = resolve_task(make_spec(data_set, "probe", head={"pooling": "mean"}, train={"epochs": None}))
    summary, folder = register_trained(task, data, tmp_path / "ruined")
    _, probe = register_trained(alone, data, tmp_path / "probe")
    assert summary.kept_start.startswith(f"{task.task_type.primary} on ")
    assert f"without {method}" in summary.kept_start
    assert summary.parameters.adapter == 0
    tensors = load_file(folder / "adapter_model.safetensors")
    assert [name for name, tensor in tensors.items() if tensor.numel() and "score" not in name] == []
    rows = [example.row for example in load_part(data, "test")]
    outputs = [load_adapter(each).predictor.compute_outputs(rows) for each in (folder, probe)]
    # The one was computed in the format of the training, and rounds its features otherwise.
    np.testing.assert_allclose(outputs[0], outputs[1], atol=2e-2 * np.abs(outputs[1]).max())


@pytest.mark.usefixtures("_any_end_is_given_up")
@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning"])
@pytest.mark.parametrize("base", ["bert", "gpt2"])
def test_peft_reads_an_adapter_without_tokens(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], tmp_path: Path, method: str, base: str
) -> None:
    pooling = {"bert": "mean", "gpt2": "last"}[base]
    spec = make_spec("classification", method, base=base, head={**HEAD, "pooling": pooling}, train=RUINED)
    task = resolve_task(spec)
    summary, folder = register_trained(task, tiny_data("classification"), tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    assert config["num_virtual_tokens"] == 0
    rows = [{"text": "the film was great"}, {"text": "a story so dull and very weak it is"}]
    loaded = load_adapter(folder)
    task_type: Any = task.task_type.hold_pooling(summary.head)
    model, _ = task_type.load_model(task.base.folder, summary.labels)
    read = PeftModel.from_pretrained(model, str(folder)).eval()
    reader = task_type.load_reader(task.base.folder)
    batch = reader.pad(task_type.encode_rows(reader, rows), return_tensors="pt")
    with torch.no_grad():
        logits = read(**batch).logits
    np.testing.assert_allclose(logits.numpy(), loaded.predictor.compute_outputs(rows), atol=1e-4)


def set_up_for(spec: TaskSpec, labels: list[str]) -> Setup:
    task = resolve_task(spec)
    task_type = task.task_type.settle(task.base.folder)
    return set_up(spec, task.base, task_type, task.build_method(), labels=labels, group=ALONE)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("is_right", [True, False])
def test_validation_decides(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], method: str, is_right: bool
) -> None:
    data = tiny_data("classification")
    labels = [*(load_card(data).labels or ())]
    examples = load_part(data, "train")
    spec = make_spec("classification", method, head=HEAD)
    setup = set_up_for(spec, labels)
    setup.model.eval()
    task_type: Any = setup.task_type
    rows = [example.row for example in examples]
    before = task_type.compute_outputs(setup.model, setup.reader, rows, labels, lambda _done: None)
    truth = np.asarray([labels.index(str(example.label)) for example in examples])
    answers = np.eye(len(labels))[truth if is_right else (truth + 1) % len(labels)]
    layer = find_output_layer(setup.model, setup.newly_initialized, len(labels))
    weight = np.ones(tuple(layer.weight.shape), dtype=np.float32)
    head = FittedHead(weight=weight, bias=np.arange(len(labels), dtype=np.float32), penalty=1.0, loss=0.0)
    probe = LinearProbe(head, answers, 0.0)
    why = give_up_worse_end(setup, probe, examples, labels, spec.evaluate, start=None)
    after = task_type.compute_outputs(setup.model, setup.reader, rows, labels, lambda _done: None)
    assert bool(why) is is_right
    assert np.array_equal(layer.weight.detach().numpy(), weight) is is_right
    assert np.array_equal(before, after) is not is_right
    shapes = setup.method.list_shapes(setup.model)
    assert (0 in {size for shape in shapes.values() for size in shape}) is is_right


@pytest.mark.usefixtures("_any_end_is_given_up")
def test_tokens_between_words_stay(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """The input has places for them."""
    method = {"name": "p-tuning", "template": "[P]*2 {text} [P]"}
    task = resolve_task(make_spec("classification", method, head=HEAD, train=RUINED))
    summary, folder = register_trained(task, tiny_data("classification"), tmp_path)
    assert "when training began" in summary.kept_start
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    assert config["num_virtual_tokens"] == 3


def test_a_method_that_begins_as_the_base_is_not_left_out(make_spec: MakeSpec) -> None:
    setup = set_up_for(make_spec("classification", "lora"), ["a", "b"])
    assert not setup.method.can_be_left_out
    with pytest.raises(TrainingError, match="lora cannot be left out"):
        setup.method.leave_out(setup.model)
