"""What we rely on in transformers' Trainer beyond its documentation, so that a new version fails here first.

Each failure says what moved, what of ours depends on it, and what to do.
"""

import inspect
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.requirements import Requirement
from packaging.version import Version
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments

from lorry_components.task_types.training_form import TrainingForm
from lorry_components.training.callbacks import EarlyStoppingCallback
from lorry_components.training.checkpoints.checkpoint_files import (
    STATE_NAME,
    find_checkpoint,
    name_checkpoint,
)
from lorry_components.training.kernels.sampler import order_by_length
from lorry_components.training.trainer import AdapterTrainer, EncodedExamples

PROJECT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
INSTALLED = Version(transformers.__version__)
SEED = 3
# Of a different length each, so that an order of rows can be read off the lengths of batches.
LENGTHS = [2, 3, 4, 5, 6, 7, 8, 9]

# Method -> its parameters with their defaults, and why it is overridden.
PRIVATE = {
    "_load_from_checkpoint": (
        {"resume_from_checkpoint": inspect.Parameter.empty, "model": None},
        "it reads our checkpoints when a training is resumed",
    ),
    "_save_rng_state": (
        {"output_dir": inspect.Parameter.empty},
        "it waits for the random states of all processes before a checkpoint becomes complete",
    ),
}
PUBLIC = {
    "get_train_dataloader": ({}, "it gives batches of like length in an order that can be repeated"),
    "create_optimizer": ({"model": None}, "it gives parameters learning rates of their own"),
    "compute_loss": (
        {
            "model": inspect.Parameter.empty,
            "inputs": inspect.Parameter.empty,
            "return_outputs": False,
            "num_items_in_batch": None,
        },
        "it weights a batch's loss by its tokens",
    ),
    "evaluate": (
        {"eval_dataset": None, "ignore_keys": None, "metric_key_prefix": "eval"},
        "it keeps the random state of the training",
    ),
    "save_model": (
        {"output_dir": None, "_internal_call": False},
        "it writes what is trained into a checkpoint",
    ),
}


def explain(what: str, reliance: str, todo: str) -> str:
    return (
        f"transformers {INSTALLED}: {what}. We rely on it: {reliance}. {todo}, and let "
        "pyproject.toml admit this minor version of transformers only when this file passes."
    )


class Model(nn.Module):
    """Predicts one of three classes at each position."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> Any:
        logits = self.head(self.embed(input_ids))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return transformers.modeling_outputs.TokenClassifierOutput(loss=loss, logits=logits)


class Method:
    """A method without a state of its own."""

    def export_state(self, _model: Any) -> dict[str, torch.Tensor]:
        return {}

    def import_state(self, _model: Any, _state: Any) -> None:
        raise AssertionError("there is none")

    def start_training(self, _model: Any, _steps: int) -> None:
        return

    def finish_step(self, _model: Any, _step: int) -> None:
        return


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    width = max(len(row["input_ids"]) for row in rows)
    return {
        "input_ids": torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows]),
        "labels": torch.tensor([row["labels"] + [-100] * (width - len(row["labels"])) for row in rows]),
    }


class Watcher(TrainerCallback):
    """Notes when training begins, and when a checkpoint was saved."""

    def __init__(self, events: list[tuple[str, Any]]) -> None:
        self.events = events

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.events.append(("begin", None))

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        saved = name_checkpoint(Path(str(args.output_dir)), state.global_step)
        self.events.append(("saved", {path.name for path in saved.iterdir()}))


class WatchedTrainer(AdapterTrainer):
    """Notes which of our methods Trainer calls, with what, and in which order."""

    events: list[tuple[str, Any]]

    def get_train_dataloader(self) -> Any:
        self.events.append(("get_train_dataloader", None))
        return super().get_train_dataloader()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        self.events.append(("create_optimizer", None))
        return super().create_optimizer(model)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        where = "compute_loss" if model.training else "validation loss"
        self.events.append((where, (inputs["input_ids"].shape[1], num_items_in_batch)))
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def evaluate(self, *arguments: Any, **keywords: Any) -> dict[str, float]:
        self.events.append(("evaluate", self.state.global_step))
        return super().evaluate(*arguments, **keywords)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        self.events.append(("save_model", output_dir))
        super().save_model(output_dir, _internal_call)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.events.append(("_load_from_checkpoint", resume_from_checkpoint))
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.events.append(("_save_rng_state", {path.name for path in Path(output_dir).iterdir()}))


def build_trainer(folder: Path, trainer: type[Trainer] = WatchedTrainer, **changes: Any) -> Any:
    torch.manual_seed(0)
    own = (
        {
            "method": Method(),
            "scale_learning_rate": lambda _name: 1.0,
            "form": TrainingForm(loss="token_mean"),
        }
        if issubclass(trainer, AdapterTrainer)
        else {}
    )
    own |= {name: changes.pop(name) for name in ("compute_metrics", "callbacks", "model") if name in changes}
    arguments = {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 2,
        "eval_strategy": "epoch",
        "save_strategy": "steps",
        "save_steps": 3,
        "logging_strategy": "no",
        "seed": SEED,
    }
    rows = EncodedExamples([{"input_ids": [1] * n, "labels": [n % 3] * n} for n in LENGTHS])
    built: Any = trainer(
        **{"model": Model()} | own,
        args=TrainingArguments(
            output_dir=str(folder),
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            label_names=["labels"],
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            **arguments | changes,
        ),
        data_collator=collate,
        train_dataset=rows,
        eval_dataset=rows,
    )
    built.events = []
    built.add_callback(Watcher(built.events))
    built.remove_callback(transformers.PrinterCallback)
    return built


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[tuple[str, Any]], Path]]:
    """Return what happened in a training of two epochs of four steps, and its folder."""
    folder = tmp_path_factory.mktemp("trained")
    trainer = build_trainer(folder)
    trainer.train()
    yield trainer.events, folder


def list_private_overrides() -> set[str]:
    return {
        name
        for name in vars(AdapterTrainer)
        if name.startswith("_") and not name.endswith("__") and hasattr(Trainer, name)
    }


def test_the_private_overrides_are_those_that_are_tested_here() -> None:
    assert list_private_overrides() == set(PRIVATE), (
        "AdapterTrainer overrides other private methods of Trainer than this file checks. Find a public "
        "hook, or add the method to PRIVATE, with a test that Trainer calls it where we rely on it."
    )


def test_the_upper_bound_follows_from_the_private_overrides() -> None:
    document = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
    requirements = map(Requirement, document["project"]["optional-dependencies"]["train"])
    bounds = next(one.specifier for one in requirements if one.name == "transformers")
    upper = f"{INSTALLED.major}.{INSTALLED.minor + 1}" if PRIVATE else str(INSTALLED.major + 1)
    assert INSTALLED in bounds and f"<{upper}" in {str(bound) for bound in bounds}, (
        f"pyproject.toml asks for transformers{bounds}, and {INSTALLED} is installed. As long as private "
        "methods of Trainer are overridden, only the minor version that this file passes with may be "
        f"admitted: run tests/unit/training with {INSTALLED}, mend what fails, and make <{upper} the bound."
    )


@pytest.mark.parametrize("name", [*PRIVATE, *PUBLIC])
def test_what_is_overridden_exists_and_takes_what_it_took(name: str) -> None:
    expected, reliance = (PRIVATE | PUBLIC)[name]
    method = getattr(Trainer, name, None)
    todo = f"Read what takes the place of Trainer.{name} and override that"
    assert method is not None, explain(f"Trainer.{name} is gone", reliance, todo)
    parameters = list(inspect.signature(method).parameters.values())[1:]
    found = {parameter.name: parameter.default for parameter in parameters}
    todo = f"Give AdapterTrainer.{name} the same parameters, and heed the new ones"
    assert found == expected, explain(f"Trainer.{name} takes {list(found)}", reliance, todo)


def test_our_own_names_are_no_names_of_trainer(tmp_path: Path) -> None:
    ours = set(vars(AdapterTrainer)) - set(PRIVATE) - set(PUBLIC) - set(vars(object)) - {"__module__"}
    ours -= {"__annotations__", "__static_attributes__", "__firstlineno__"}
    plain = build_trainer(tmp_path, Trainer)
    clashing = {name for name in ours if hasattr(plain, name)}
    assert not clashing, (
        f"Trainer of transformers {INSTALLED} has names of ours now: {clashing}. Rename ours."
    )
    added = set(vars(build_trainer(tmp_path, AdapterTrainer))) - set(vars(plain))
    assert added == {"_method", "_predicts_next", "_scale_learning_rate", "prefix"}, (
        f"of what AdapterTrainer adds, Trainer of transformers {INSTALLED} has attributes of its own, or "
        f"this test does not know them all: {added}. Rename ours, or correct this test."
    )


def test_a_checkpoint_is_complete_only_when_all_random_states_are_there(
    trained: tuple[list[tuple[str, Any]], Path],
) -> None:
    events, folder = trained
    steps = [(name, value) for name, value in events if name in ("save_model", "_save_rng_state", "saved")]
    reliance = "a kill at any moment leaves no checkpoint that looks complete and is not"
    todo = "Move the waiting of AdapterTrainer._save_rng_state to what comes before the state is written"
    assert [name for name, _ in steps[:3]] == ["save_model", "_save_rng_state", "saved"], explain(
        f"a checkpoint is written in the order {[name for name, _ in steps[:3]]}", reliance, todo
    )
    assert steps[0][1] == str(name_checkpoint(folder, 3))
    before, after = steps[1][1], steps[2][1]
    needed = {"rng_state.pth", "optimizer.pt", "scheduler.pt", "trained.safetensors"}
    assert needed <= before, explain(f"_save_rng_state leaves {sorted(before)}", reliance, todo)
    assert after - before == {STATE_NAME}, explain(
        f"after the random states {sorted(after - before)} are written, and before them {sorted(before)}",
        reliance,
        todo,
    )


def test_trainer_writes_nothing_of_the_base(trained: tuple[list[tuple[str, Any]], Path]) -> None:
    events, _ = trained
    found = next(value for name, value in events if name == "saved")
    expected = {"trained.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", STATE_NAME}
    assert found == expected, explain(
        f"a checkpoint holds {sorted(found)}",
        "save_model writes all that is in a checkpoint of the model",
        "Find who writes the other files, and override that",
    )


def test_the_rows_of_each_epoch_come_in_our_order(trained: tuple[list[tuple[str, Any]], Path]) -> None:
    events, _ = trained
    seen = [value[0] for name, value in events if name == "compute_loss"]
    orders = [order_by_length(LENGTHS, 1, seed=SEED, epoch=epoch) for epoch in (0, 1)]
    assert orders[0] != orders[1]
    assert seen == [LENGTHS[row] for order in orders for row in order], explain(
        "training reads other rows than get_train_dataloader's sampler gives",
        "the order of an epoch depends on the seed and state.epoch alone",
        "Read when Trainer asks for the dataloader, and when it sets state.epoch",
    )
    assert [name for name, _ in events].count("get_train_dataloader") == 1


def test_the_tokens_of_a_step_are_counted_over_its_batches(
    trained: tuple[list[tuple[str, Any]], Path],
) -> None:
    events, _ = trained
    batches = [value for name, value in events if name == "compute_loss"]
    steps = [batches[start : start + 2] for start in range(0, len(batches), 2)]
    todo = "Count in AdapterTrainer.get_batch_samples, or read what Trainer passes on instead"
    for step in steps:
        counts = [int(count) for _, count in step]
        assert counts == [sum(length for length, _ in step)] * 2, explain(
            f"of two batches with {[length for length, _ in step]} labels compute_loss hears of {counts}",
            "num_items_in_batch is the number of labels of all accumulated batches that are not -100",
            todo,
        )


def test_without_averages_over_tokens_none_are_counted(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, eval_strategy="no", save_strategy="no", max_steps=1)
    trainer.model_accepts_loss_kwargs = False
    trainer.train()
    counts = [value[1] for name, value in trainer.events if name == "compute_loss"]
    assert counts == [None, None], explain(
        f"compute_loss hears of {counts}",
        "model_accepts_loss_kwargs = False makes Trainer take the mean of the batches' losses",
        "Find what decides it now",
    )


def test_training_evaluates_and_creates_its_optimizer_through_us(
    trained: tuple[list[tuple[str, Any]], Path],
) -> None:
    events, _ = trained
    assert [value for name, value in events if name == "evaluate"] == [4, 8]
    names = [name for name, _ in events]
    assert names.count("create_optimizer") == 1
    assert names.index("create_optimizer") < names.index("begin") < names.index("compute_loss")


def test_a_resumed_training_reads_our_checkpoint_before_its_first_step(
    trained: tuple[list[tuple[str, Any]], Path], tmp_path: Path
) -> None:
    _, folder = trained
    trainer = build_trainer(tmp_path)
    checkpoint = name_checkpoint(folder, 3)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    names = [name for name, _ in trainer.events]
    assert names.count("_load_from_checkpoint") == 1, explain(
        "train(resume_from_checkpoint=...) does not call _load_from_checkpoint once",
        *PRIVATE["_load_from_checkpoint"][1:],
        "Find who reads the weights of a checkpoint now",
    )
    assert names.index("_load_from_checkpoint") < names.index("begin") < names.index("compute_loss")
    assert dict(trainer.events)["_load_from_checkpoint"] == str(checkpoint)
    # Five of eight steps were left, of two batches each.
    assert names.count("compute_loss") == 10


def test_trainer_itself_would_still_refuse_our_checkpoints(
    trained: tuple[list[tuple[str, Any]], Path], tmp_path: Path
) -> None:
    _, folder = trained
    plain = build_trainer(tmp_path, Trainer)
    checkpoint = find_checkpoint(folder)
    assert checkpoint is not None
    with pytest.raises(ValueError, match="Can't find a valid checkpoint"):
        plain._load_from_checkpoint(str(checkpoint))


def test_the_state_says_whether_training_had_ended(trained: tuple[list[tuple[str, Any]], Path]) -> None:
    _, folder = trained
    for step, has_ended in ((6, False), (8, True)):
        path = name_checkpoint(folder, step) / STATE_NAME
        control = TrainerState.load_from_json(str(path)).stateful_callbacks.get("TrainerControl", {})
        assert control.get("args", {}).get("should_training_stop") is has_ended, explain(
            f"{path.parent.name} has the control {control}",
            "take_over reads from it that a training had ended when it was killed",
            "Find where the state keeps it now",
        )


def test_the_best_checkpoint_is_known_and_kept_though_we_load_it(tmp_path: Path) -> None:
    scores = iter((0.9, 0.1, 0.2, 0.3))
    trainer = build_trainer(
        tmp_path,
        num_train_epochs=4,
        save_strategy="epoch",
        save_total_limit=2,
        metric_for_best_model="score",
        greater_is_better=True,
        compute_metrics=lambda _: {"score": next(scores)},
        callbacks=[EarlyStoppingCallback(5)],
    )
    trainer.train()
    kept = {path.name for path in tmp_path.glob("checkpoint-*")}
    assert trainer.state.best_global_step == 4 and kept == {"checkpoint-4", "checkpoint-16"}, explain(
        f"the best step is taken for {trainer.state.best_global_step}, and {sorted(kept)} are kept",
        "load_best reads the checkpoint of state.best_global_step, without load_best_model_at_end",
        "Set load_best_model_at_end, and override what then loads the weights",
    )
    saved = TrainerState.load_from_json(str(tmp_path / "checkpoint-16" / STATE_NAME)).stateful_callbacks
    assert saved["EarlyStoppingCallback"]["attributes"] == {"early_stopping_patience_counter": 3}
    trained = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    trainer.load_best()
    assert any(not torch.equal(trained[name], now) for name, now in trainer.model.named_parameters())


def test_a_model_that_owns_its_placement_is_wrapped_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build_trainer(tmp_path, eval_strategy="no", save_strategy="no", max_steps=1)
    assert trainer.is_distributed_loading_by_transformers is False
    trainer.own_placement()
    prepared: list[dict[str, Any]] = []

    def prepare_model(model: Any, **options: Any) -> Any:
        prepared.append(options)
        return model

    averaged: list[Any] = []
    monkeypatch.setattr(trainer.accelerator, "prepare_model", prepare_model)
    monkeypatch.setattr(trainer, "_sync_replicated_trainable_parameters", averaged.append)
    trainer.train()
    assert prepared == [{"device_placement": False, "evaluation_mode": True}] and averaged == [
        trainer.model
    ], explain(
        f"a model in shares is prepared with {prepared}, and its gradients averaged {len(averaged)} times",
        "is_distributed_loading_by_transformers leaves frozen weights in shares where they are",
        "Find how Trainer now treats a model that was divided before it",
    )


@pytest.mark.parametrize("name", ["n_gpu", "place_model_on_device"])
def test_what_our_arguments_answer_is_asked_of_them(name: str, tmp_path: Path) -> None:
    assert isinstance(inspect.getattr_static(TrainingArguments, name), property), explain(
        f"TrainingArguments.{name} is no property now",
        "arguments.build_arguments overrides it",
        "Pass it as an argument instead",
    )

    class Arguments(TrainingArguments):
        place_model_on_device = False

    arguments = Arguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    trainer = Trainer(model=Model(), args=arguments)
    assert trainer.place_model_on_device is False


def test_gradients_in_shares_are_reduced_in_each_batch(tmp_path: Path) -> None:
    trainer = build_trainer(
        tmp_path, accelerator_config={"gradient_accumulation_kwargs": {"sync_each_batch": True}}
    )
    options = trainer.accelerator.gradient_state.plugin_kwargs
    assert options.get("sync_each_batch") is True, explain(
        f"accelerate is given {options}",
        "with sync_each_batch Trainer does not put off a reduction that frozen weights do not have",
        "Find how a step is accumulated with train.offload now",
    )
