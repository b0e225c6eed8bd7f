"""Fine-tuning: its order of examples, its precision, its budget, and what it leaves behind."""

import itertools
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lorry_components.inference import assemble_adapter
from lorry_components.methods import METHODS
from lorry_components.models.bases import resolve_base
from lorry_components.steps.finetune.step import finetune, name_checkpoints
from lorry_components.steps.prepare_data.step import load_card, load_part
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_components.tasks.definition import find_method, find_task_type
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.checkpoints.checkpoint_files import find_checkpoint
from lorry_components.training.kernels import sampler
from lorry_components.training.kernels.sampler import LengthGroupedSampler, order_by_length
from lorry_components.training.setup.precision import Hardware, Precision, choose_precision, detect_hardware
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.errors import InvalidTaskError, TrainingError
from lorry_registry.tasks.task_spec import TaskSpec

# A probe draws nothing by its seed, and trains in no steps: test_fitted_heads.py has its own.
IN_STEPS = sorted(METHODS.keys() - {"qlora", "probe"})

MakeSpec = Callable[..., TaskSpec]
WEIGHTS = "adapter/adapter_model.safetensors"


# The order of examples

LENGTHS = st.lists(st.integers(1, 512), max_size=400)
SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 40), SEEDS, st.integers(0, 20))
def test_an_epoch_sees_every_example_once(lengths: list[int], batch: int, seed: int, epoch: int) -> None:
    order = order_by_length(lengths, batch, seed=seed, epoch=epoch)
    assert sorted(order) == list(range(len(lengths)))
    assert order == order_by_length(list(lengths), batch, seed=seed, epoch=epoch)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 40), SEEDS, st.integers(0, 20))
def test_batches_hold_examples_of_like_length(lengths: list[int], batch: int, seed: int, epoch: int) -> None:
    order = order_by_length(lengths, batch, seed=seed, epoch=epoch)
    full = len(lengths) // batch
    batches = np.asarray(lengths)[order[: full * batch]].reshape(full, batch)
    if full <= 50:
        # One pool: sorted, its batches do not overlap in length.
        spans = sorted((int(members.min()), int(members.max())) for members in batches)
        assert all(longest <= shortest for (_, longest), (shortest, _) in itertools.pairwise(spans))
    assert len(order) - full * batch == len(lengths) % batch


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 50), st.integers(0, 50))
def test_another_seed_or_epoch_is_another_order(seed: int, other: int, epoch: int, later: int) -> None:
    lengths = [index % 17 for index in range(200)]
    first = order_by_length(lengths, 8, seed=seed, epoch=epoch)
    second = order_by_length(lengths, 8, seed=other, epoch=later)
    assert (first == second) == ((seed, epoch) == (other, later))


def test_the_short_batch_comes_last_and_is_no_extreme() -> None:
    lengths = list(range(100))
    shorts = [order_by_length(lengths, 32, seed=seed, epoch=0)[96:] for seed in range(40)]
    assert {len(short) for short in shorts} == {4}
    assert 35 < np.mean(shorts) < 65


def test_grouping_saves_most_of_the_padding() -> None:
    lengths = np.random.default_rng(0).geometric(1 / 24, size=5000)
    order = np.asarray(order_by_length(lengths.tolist(), 32, seed=0, epoch=0)[: 5000 // 32 * 32])
    shuffled = np.random.default_rng(1).permutation(5000)[: len(order)]
    grouped, mixed = (
        float(lengths[chosen].reshape(-1, 32).max(axis=1).mean()) for chosen in (order, shuffled)
    )
    assert grouped < 1.15 * lengths.mean()
    assert mixed > 3 * lengths.mean()


def test_order_does_not_touch_the_global_random_state() -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    order_by_length([3, 1, 2] * 20, 4, seed=0, epoch=0)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]


def test_the_sampler_asks_for_the_epoch_when_an_iteration_starts() -> None:
    epoch = 0
    lengths = [length % 9 for length in range(50)]
    sampler = LengthGroupedSampler(lengths, 4, 7, lambda: epoch)
    assert len(sampler) == 50
    assert list(sampler) == order_by_length(lengths, 4, seed=7, epoch=0)
    epoch = 3
    assert list(sampler) == order_by_length(lengths, 4, seed=7, epoch=3)


# Precision

PLAIN = Hardware("cpu", "old processor", has_bf16=False, has_fp16=False)
MODERN = Hardware("cpu", "new processor", has_bf16=True, has_fp16=False)
AMPERE = Hardware("cuda", "A100", has_bf16=True, has_fp16=True)
VOLTA = Hardware("cuda", "V100", has_bf16=False, has_fp16=True)
APPLE = Hardware("mps", "Apple GPU", has_bf16=False, has_fp16=False)


@pytest.mark.parametrize(
    ("requested", "hardware", "max_length", "name", "attention"),
    [
        ("auto", PLAIN, 128, "fp32", "eager"),
        ("auto", PLAIN, 512, "fp32", "eager"),
        ("auto", PLAIN, 513, "fp32", None),
        ("auto", MODERN, 128, "bf16", "eager"),
        ("auto", AMPERE, 128, "bf16", None),
        ("auto", VOLTA, 128, "fp16", None),
        ("auto", APPLE, 128, "fp32", None),
        ("fp32", MODERN, 128, "fp32", "eager"),
        ("fp32", AMPERE, 128, "fp32", None),
        ("bf16", PLAIN, 128, "bf16", "eager"),
        ("bf16", VOLTA, 128, "bf16", None),
        ("fp16", AMPERE, 128, "fp16", None),
        ("fp16", VOLTA, 128, "fp16", None),
    ],
)
def test_precision_follows_the_hardware(
    requested: str, hardware: Hardware, max_length: int, name: Any, attention: Any
) -> None:
    assert choose_precision(requested, hardware, max_length=max_length) == Precision(name, attention)


@pytest.mark.parametrize("hardware", [PLAIN, MODERN, APPLE])
def test_fp16_without_cuda_is_refused(hardware: Hardware) -> None:
    with pytest.raises(TrainingError) as caught:
        choose_precision("fp16", hardware, max_length=128)
    assert caught.value.where == "train.precision"
    assert hardware.name in caught.value.what
    assert "auto" in caught.value.todo


def test_the_hardware_here_can_train() -> None:
    hardware = detect_hardware()
    assert hardware.device in ("cpu", "cuda", "mps")
    assert hardware.name
    assert choose_precision("auto", hardware, max_length=128).name in ("fp32", "bf16", "fp16")


# Training


class Watch:
    """What a training told while it ran."""

    def __init__(self) -> None:
        self.progress: list[tuple[int, int]] = []
        self.notes: list[str] = []
        self.metrics: list[tuple[int, dict[str, float]]] = []

    def note(self, done: int, total: int, note: str = "") -> None:
        self.progress.append((done, total))
        self.notes.append(note)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.metrics.append((step, dict(metrics)))

    def list_values(self, name: str) -> list[float]:
        return [metrics[name] for _, metrics in self.metrics if name in metrics]


Train = Callable[..., tuple[TrainingSummary, Path, Watch]]


@pytest.fixture
def train(tiny_data: Callable[[str], Path], tmp_path: Path) -> Train:
    """Return a function that trains a task and returns the summary, the candidate, and what was told."""

    def start(
        spec: TaskSpec, name: str = "candidate", data: Path | None = None
    ) -> tuple[TrainingSummary, Path, Watch]:
        watch = Watch()
        summary = finetune(
            resolve_task(spec),
            data or tiny_data(spec.name.removeprefix("tiny-")),
            tmp_path / name,
            checkpoints=tmp_path / f"{name}-checkpoints",
            progress=watch.note,
            log_metrics=watch.log,
        )
        return summary, tmp_path / name, watch

    return start


def test_a_training_leaves_an_adapter_and_its_summary(
    train: Train, make_spec: MakeSpec, tiny_data: Callable[[str], Path]
) -> None:
    spec = make_spec("classification", train={"epochs": 1})
    summary, candidate, _ = train(spec)
    assert sorted(path.relative_to(candidate).as_posix() for path in candidate.rglob("*")) == [
        "adapter",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "linear_probe.safetensors",
        "row_fingerprints.json",
        "training.json",
    ]
    assert TrainingSummary.load(candidate) == summary
    card = load_card(tiny_data("classification"))
    assert summary.base == resolve_base(spec.base).identity
    assert summary.inputs.source_digest == card.source_digest
    assert summary.inputs.data_digest == card.data_digest
    assert summary.inputs.recipe_digest == spec.recipe_digest
    assert summary.labels == ("bad", "good", "mixed")
    assert not summary.has_pair
    assert summary.parameters.adapter == 2 * 2 * 2 * 4 * 32
    assert summary.parameters.head == 3 * 33
    assert summary.examples == card.splits["train"].rows
    assert (summary.steps, summary.resumed_from) == (6, 0)
    assert summary.precision == "fp32"
    assert math.isfinite(summary.loss)
    assert summary.examples_per_second > 0
    assert {"torch", "transformers", "peft", "lorry"} <= summary.libraries.keys()


def test_the_summary_of_a_training_appears_whole(
    trained: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary: TrainingSummary = trained().summary
    summary.save(tmp_path)

    def fail(self: Path, content: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(content[:10])
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        summary.model_copy(update={"steps": 1}).save(tmp_path)
    assert TrainingSummary.load(tmp_path) == summary
    assert [path.name for path in tmp_path.iterdir()] == ["training.json"]


def test_a_pair_is_noted(train: Train, make_spec: MakeSpec) -> None:
    summary, _, _ = train(make_spec("pair", train={"epochs": None, "steps": 1}))
    assert summary.has_pair
    assert summary.labels == ("different", "same")


def test_the_watchers_are_told(train: Train, make_spec: MakeSpec) -> None:
    _, _, watch = train(make_spec(train={"epochs": 2}))
    assert watch.progress == [(step, 12) for step in range(13)]
    assert watch.notes[0] == ""
    assert re.fullmatch(r"loss \d+(\.\d+)?, \d+(\.\d+)?(e\+\d+)? rows/s, 0 s left", watch.notes[-1])
    assert len(watch.list_values("train/loss")) == 12
    assert len(watch.list_values("learning_rate")) == 12
    assert [step for step, metrics in watch.metrics if "validation/pearson" in metrics] == [6, 12]
    names = {name for _, metrics in watch.metrics for name in metrics}
    assert names == {
        "train/loss",
        "grad_norm",
        "learning_rate",
        "head_learning_rate",
        "validation/loss",
        "validation/pearson",
        "validation/spearman",
        "validation/rmse",
    }


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        ({"epochs": 45}, [*range(18, 271, 18)]),
        # Its last epoch is not whole.
        ({"epochs": None, "steps": 131}, [*range(12, 127, 12), 131]),
    ],
)
def test_of_many_epochs_some_are_evaluated_and_the_last(
    train: Train, make_spec: MakeSpec, length: dict[str, Any], expected: list[int]
) -> None:
    _, _, watch = train(make_spec(train=length))
    assert [step for step, metrics in watch.metrics if "validation/pearson" in metrics] == expected


def test_where_the_best_epoch_is_kept_each_is_evaluated(train: Train, make_spec: MakeSpec) -> None:
    _, _, watch = train(make_spec(train={"epochs": 25, "early_stopping": {"patience": 25}}))
    evaluated = [step for step, metrics in watch.metrics if "validation/pearson" in metrics]
    assert evaluated == [*range(6, 151, 6)]


def test_something_is_learned(train: Train, make_spec: MakeSpec) -> None:
    fields = {"epochs": 20, "learning_rate": 2e-3, "hidden_dropout": 0.0}
    _, _, watch = train(make_spec(method="full", train=fields))
    losses, scores = watch.list_values("train/loss"), watch.list_values("validation/pearson")
    assert np.mean(losses[-6:]) < 0.5 * np.mean(losses[:6])
    assert scores[-1] > scores[0] + 0.2


@pytest.mark.parametrize("method", IN_STEPS)
def test_the_same_seed_gives_the_same_bytes(train: Train, make_spec: MakeSpec, method: str) -> None:
    dropout = {"train": {"epochs": 1, "hidden_dropout": 0.1}}
    first, second, other = (
        train(make_spec(method=method, train=dropout["train"] | {"seed": seed}), name)[1] / WEIGHTS
        for name, seed in (("first", 5), ("second", 5), ("other", 6))
    )
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() != other.read_bytes()


def test_each_epoch_has_an_order_of_its_own(
    train: Train, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def note(lengths: list[int], batch_size: int, *, seed: int, epoch: int) -> list[int]:
        asked.append((seed, epoch))
        return order_by_length(lengths, batch_size, seed=seed, epoch=epoch)

    monkeypatch.setattr(sampler, "order_by_length", note)
    train(make_spec(train={"epochs": 3, "seed": 11}))
    assert asked == [(11, 0), (11, 1), (11, 2)]


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({"epochs": 1}, 6),
        ({"epochs": 1.5}, 9),
        ({"epochs": 0.1}, 1),
        ({"epochs": None, "steps": 4}, 4),
        ({"epochs": None, "steps": 8}, 8),
        # Three epochs would be 18.
        ({"epochs": None}, 100),
        ({"epochs": 1, "batch_size": 8}, 11),
        ({"epochs": 2, "batch_size": 8, "gradient_accumulation": 2}, 12),
        ({"epochs": 1, "batch_size": 8, "gradient_accumulation": 4}, 3),
        ({"epochs": 1, "batch_size": 1000}, 1),
    ],
)
def test_a_training_takes_as_many_steps_as_it_was_told(
    train: Train, make_spec: MakeSpec, fields: dict[str, Any], steps: int
) -> None:
    summary, _, watch = train(make_spec(train=fields))
    assert summary.steps == steps
    assert watch.progress[-1] == (steps, steps)


def test_accumulated_gradients_are_those_of_the_larger_batch(
    train: Train, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In one order, a step over two batches of eight is a step over one of sixteen.
    def keep_order(lengths: list[int], batch_size: int, *, seed: int, epoch: int) -> list[int]:
        return list(range(80))

    monkeypatch.setattr(sampler, "order_by_length", keep_order)
    monkeypatch.setattr(LengthGroupedSampler, "__len__", lambda _: 80)
    whole = {"epochs": None, "steps": 4, "learning_rate": 1e-3, "hidden_dropout": 0.0}
    _, first, _ = train(make_spec(train=whole | {"batch_size": 16}), "whole")
    _, second, _ = train(make_spec(train=whole | {"batch_size": 8, "gradient_accumulation": 2}), "halves")
    expected, found = load_file(first / WEIGHTS), load_file(second / WEIGHTS)
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name].numpy(), tensor.numpy(), atol=2e-4, err_msg=name)


@pytest.mark.parametrize("method", IN_STEPS)
def test_a_task_that_names_no_learning_rate_gets_the_methods(
    train: Train, make_spec: MakeSpec, method: str
) -> None:
    fields = {"epochs": None, "steps": 2, "learning_rate": None, "schedule": "constant"}
    _, _, watch = train(make_spec(method=method, train=fields))
    assert watch.list_values("learning_rate") == [METHODS[method].learning_rate] * 2


@pytest.mark.parametrize(("method", "share"), [("lora", 1 / 4), ("full", 1 / 4), ("bitfit", 1)])
def test_matrices_are_learned_more_slowly_on_a_wider_base(
    train: Train, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, method: str, share: float
) -> None:
    # The tiny base has 32.
    monkeypatch.setattr("lorry_components.methods.base.MEASURED_WIDTH", 8)
    fields = {"epochs": None, "steps": 2, "learning_rate": None, "schedule": "constant"}
    summary, _, watch = train(make_spec(method=method, train=fields))
    assert summary.learning_rate == METHODS[method].learning_rate * share
    assert watch.list_values("learning_rate") == [summary.learning_rate] * 2
    own, _, _ = train(make_spec(method=method, train=fields | {"learning_rate": 0.25}), "own")
    assert own.learning_rate == 0.25


def test_the_learning_rate_rises_and_falls(train: Train, make_spec: MakeSpec) -> None:
    fields = {"epochs": None, "steps": 10, "learning_rate": 1e-3, "warmup": 0.2}
    _, _, watch = train(make_spec(train=fields))
    rates = watch.list_values("learning_rate")
    assert rates[:3] == pytest.approx([0.0, 5e-4, 1e-3])
    assert np.diff(rates[2:]) == pytest.approx([-1.25e-4] * 7)


# Dropout


@pytest.fixture
def loaded_models(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list that fills with the models that a training loads."""
    models: list[Any] = []
    load = SequenceHeadTaskType.load_model

    def note(self: SequenceHeadTaskType, *arguments: Any, **options: Any) -> Any:
        model, newly_initialized = load(self, *arguments, **options)
        models.append(model)
        return model, newly_initialized

    monkeypatch.setattr(SequenceHeadTaskType, "load_model", note)
    return models


@pytest.mark.parametrize(
    ("style", "attention", "hidden"),
    [
        ("bert", ["attention_probs_dropout_prob"], ["hidden_dropout_prob"]),
        ("roberta", ["attention_probs_dropout_prob"], ["hidden_dropout_prob"]),
        ("distilbert", ["attention_dropout"], ["dropout"]),
        ("gpt2", ["attn_pdrop"], ["resid_pdrop", "embd_pdrop"]),
    ],
)
def test_the_dropouts_of_a_task_reach_every_family(
    train: Train,
    make_spec: MakeSpec,
    loaded_models: list[Any],
    style: str,
    attention: list[str],
    hidden: list[str],
) -> None:
    targets = {"gpt2": ["c_attn"], "distilbert": ["q_lin"]}.get(style, ["query"])
    once = {"epochs": None, "steps": 1}
    for fields, attention_dropout, hidden_dropout in [
        ({}, 0.0, 0.1),
        ({"hidden_dropout": 0.0}, 0.0, 0.0),
        ({"hidden_dropout": 0.25, "attention_dropout": 0.5}, 0.5, 0.25),
    ]:
        train(make_spec(base=style, method={"name": "lora", "r": 2, "targets": targets}, train=once | fields))
        config = loaded_models.pop().config
        assert {name: getattr(config, name) for name in attention} == dict.fromkeys(
            attention, attention_dropout
        )
        assert {name: getattr(config, name) for name in hidden} == dict.fromkeys(hidden, hidden_dropout)
        (train_folder,) = {Path(config.name_or_path)}
        assert json.loads((train_folder / "config.json").read_text())[hidden[0]] == 0.1


def test_attention_can_read_how_much_it_is_to_drop(train: Train, make_spec: MakeSpec) -> None:
    plain, *_ = train(make_spec(train={"epochs": 1, "hidden_dropout": 0.0}), "plain")
    dropping, *_ = train(
        make_spec(train={"epochs": 1, "hidden_dropout": 0.0, "attention_dropout": 0.5}), "dropping"
    )
    assert dropping.loss != plain.loss


# Formats


def test_bf16_holds_the_base_in_half_and_the_adapter_in_full_precision(
    train: Train, make_spec: MakeSpec, loaded_models: list[Any]
) -> None:
    summary, candidate, _ = train(make_spec(train={"epochs": 1, "precision": "bf16"}))
    assert summary.precision == "bf16"
    (model,) = loaded_models
    dtypes = {(parameter.requires_grad, str(parameter.dtype)) for parameter in model.parameters()}
    assert dtypes == {(True, "torch.float32"), (False, "torch.bfloat16")}
    assert {str(tensor.dtype) for tensor in load_file(candidate / WEIGHTS).values()} == {"torch.float32"}


def test_full_fine_tuning_keeps_its_weights_in_full_precision(
    train: Train, make_spec: MakeSpec, loaded_models: list[Any]
) -> None:
    _, candidate, _ = train(make_spec(method="full", train={"epochs": 1, "precision": "bf16"}))
    (model,) = loaded_models
    assert {str(parameter.dtype) for parameter in model.parameters()} == {"torch.float32"}
    assert {str(tensor.dtype) for tensor in load_file(candidate / WEIGHTS).values()} == {"torch.float32"}


# Refusals


def list_left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


def test_an_adapter_above_its_budget_is_refused_before_training(
    train: Train, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("it was trained")

    monkeypatch.setattr("transformers.Trainer.train", fail)
    limited = {"name": "lora", "r": 32, "targets": ["query", "value"], "max_adapter_mib": 0.01}
    with pytest.raises(TrainingError) as caught:
        train(make_spec(method=limited))
    assert "above the limit of 0.01 MiB" in caught.value.what
    assert caught.value.where == "tiny-regression"
    assert "max_adapter_mib" in caught.value.todo
    assert list_left(tmp_path / "candidate") == []


def test_the_limit_of_a_task_stands_above_that_of_the_method(
    train: Train, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METHODS["lora"], "max_adapter_mib", 0.001)
    once = {"epochs": None, "steps": 1}
    with pytest.raises(TrainingError, match=r"above the limit of 0\.001 MiB"):
        train(make_spec(train=once))
    generous = {"name": "lora", "r": 4, "targets": ["query"], "max_adapter_mib": 1}
    assert train(make_spec(method=generous, train=once), "generous")[0].steps == 1


@pytest.mark.parametrize(
    ("style", "method", "limit"),
    [
        ("bert", {"name": "full"}, 64),
        ("roberta", {"name": "lora", "targets": ["query"]}, 64),
        ("gpt2", {"name": "lora", "targets": ["c_attn"]}, 64),
        ("bert", {"name": "p-tuning", "tokens": 10}, 54),
    ],
)
def test_texts_longer_than_the_base_are_refused_before_training(
    train: Train, make_spec: MakeSpec, style: str, method: dict[str, Any], limit: int
) -> None:
    # RoBERTa has 66 positions, of which it uses 64.
    def write(length: int) -> TaskSpec:
        once = {"epochs": None, "steps": 1}
        return make_spec(base=style, method=method, data={"max_length": length}, train=once)

    with pytest.raises(InvalidTaskError) as caught:
        train(write(limit + 1))
    (fault,) = caught.value.faults
    assert fault.where == "data.max_length"
    assert f"{limit + 1} tokens of text" in fault.what
    assert fault.remedy == f"write max_length: {limit} or less"
    assert train(write(limit))[0].steps == 1


@pytest.fixture
def overflowing(make_spec: MakeSpec, make_base: Callable[..., Path]) -> TaskSpec:
    """Return a task on a base whose weights are so large that what it computes is infinite."""
    folder = make_base("overflowing")
    tensors = load_file(folder / "model.safetensors")
    grown = {name: tensor * 1e30 if "word_embeddings" in name else tensor for name, tensor in tensors.items()}
    save_file(grown, folder / "model.safetensors", metadata={"format": "pt"})
    return make_spec(base=str(folder), train={"epochs": 3})


def test_a_loss_that_is_not_a_number_is_refused(train: Train, overflowing: TaskSpec, tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        train(overflowing)
    assert "the loss became" in caught.value.what
    assert "learning_rate" in caught.value.todo
    assert list_left(tmp_path / "candidate") == []


def test_a_training_that_diverged_stops_at_once(
    overflowing: TaskSpec, tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    watch = Watch()
    with pytest.raises(TrainingError, match="the loss became"):
        finetune(
            resolve_task(overflowing),
            tiny_data("regression"),
            tmp_path / "candidate",
            checkpoints=tmp_path / "checkpoints",
            progress=watch.note,
        )
    assert [done for done, _ in watch.progress] == [0, 1]


# Stopping early


def test_the_best_epoch_is_kept(train: Train, make_spec: MakeSpec, tiny_data: Callable[[str], Path]) -> None:
    fields = {"epochs": 15, "learning_rate": 0.05, "early_stopping": {"patience": 2}}
    spec = make_spec(train=fields)
    summary, candidate, watch = train(spec)
    scores = watch.list_values("validation/pearson")
    best = int(np.argmax(scores))
    assert summary.steps == 6 * len(scores) < 6 * 15, "it did not stop early"
    assert len(scores) - 1 - best == 2
    task_type, examples = find_task_type(spec), load_part(tiny_data("regression"), "validation")
    predictor = assemble_adapter(
        candidate / "adapter",
        base=resolve_base(spec.base),
        task_type=task_type,
        method=find_method(spec),
        labels=None,
    )
    predictions = predictor.predict([example.row for example in examples])
    kept = task_type.compute_metrics(["pearson"], [example.label for example in examples], predictions)
    # Validation and prediction may compute attention by different kernels.
    assert kept["pearson"] == pytest.approx(scores[best], abs=1e-4)
    assert abs(kept["pearson"] - scores[-1]) > 1e-3, "the last epoch is as good, so that nothing is shown"


def test_the_metric_of_the_task_decides_which_epoch_is_best(train: Train, make_spec: MakeSpec) -> None:
    fields = {"epochs": 12, "learning_rate": 0.05, "early_stopping": {"patience": 1}}
    evaluate = {"primary": "spearman", "metrics": ["spearman"]}
    _, _, watch = train(make_spec(train=fields, evaluate=evaluate))
    scores = watch.list_values("validation/spearman")
    assert not watch.list_values("validation/pearson")
    assert all(score > max(scores[:index]) for index, score in enumerate(scores[1:-1], start=1))
    assert scores[-1] <= max(scores[:-1])


@pytest.mark.parametrize(("primary", "metrics"), [("f1", ["accuracy"]), (None, ["f1"])])
def test_the_primary_metric_need_not_be_listed(
    train: Train, make_spec: MakeSpec, primary: str | None, metrics: list[str]
) -> None:
    fields = {"epochs": 2, "early_stopping": {"patience": 1}}
    evaluate = {"primary": primary, "metrics": metrics}
    _, _, watch = train(make_spec("classification", train=fields, evaluate=evaluate))
    assert watch.list_values(f"validation/{primary or 'accuracy'}")


# Checkpoints


def test_no_checkpoint_is_found_where_none_is(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path) is None
    assert find_checkpoint(tmp_path / "nowhere") is None


def test_the_newest_complete_checkpoint_is_found(tmp_path: Path) -> None:
    for step, content in {9: "{}", 10: "{}", 11: '{"global_step": 1', 12: "", 100: None}.items():
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trained.safetensors").write_bytes(b"")
        if content is not None:
            (folder / "trainer_state.json").write_text(content)
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_a_training_that_has_ended_is_not_trained_again(
    train: Train, make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec(train={"epochs": 1})
    _, candidate, _ = train(spec)
    before = (candidate / WEIGHTS).read_bytes()
    (candidate / "training.json").unlink()
    summary, _, watch = train(spec)
    assert (candidate / WEIGHTS).read_bytes() == before
    assert summary.resumed_from == summary.steps == 6
    assert watch.progress == []
    assert summary.examples_per_second == 0.0


def test_a_checkpoint_holds_what_is_trained_and_nothing_of_the_base(
    train: Train, make_spec: MakeSpec, tmp_path: Path
) -> None:
    summary, _, _ = train(make_spec(method="p-tuning", train={"epochs": 1}))
    checkpoint = find_checkpoint(tmp_path / "candidate-checkpoints")
    assert checkpoint is not None
    tensors = load_file(checkpoint / "trained.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == summary.parameters.trained
    assert all("soft_tokens" in name or "classifier" in name for name in tensors)


def test_another_training_has_checkpoints_of_its_own(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], make_base: Callable[..., Path]
) -> None:
    data = tiny_data("regression")
    spec = make_spec()
    name = name_checkpoints(resolve_task(spec), data)
    assert name == name_checkpoints(resolve_task(make_spec()), data)
    assert name.startswith("tiny-regression-")
    # Neither decides what is learned.
    assert name == name_checkpoints(resolve_task(make_spec(owner="me", gate={"minimum": 0.5})), data)
    others = [
        name_checkpoints(resolve_task(make_spec(train={"epochs": 3})), data),
        name_checkpoints(resolve_task(make_spec(method={"name": "lora", "r": 2})), data),
        name_checkpoints(resolve_task(make_spec(base=str(make_base(seed=1)))), data),
        name_checkpoints(resolve_task(make_spec()), tiny_data("classification")),
        name_checkpoints(resolve_task(make_spec(name="other")), data),
    ]
    assert len({name, *others}) == 1 + len(others)
