"""A training that is killed and run again ends with the same weights as one that was left alone."""

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.tasks.task_spec import TaskSpec

# Trains a task, and kills itself at a moment that its last argument names.
_TRAIN = """
import os, signal, sys, time
from pathlib import Path
from lorry_components.steps.finetune.step import finetune
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.trainer import AdapterTrainer
from lorry_registry.tasks.task_spec import TaskSpec

spec, data, target, checkpoints, moment = sys.argv[1:]

def die_at(name):
    if name == moment:
        os.kill(os.getpid(), signal.SIGKILL)

def watch(done, total, note=""):
    if moment == "slowly":
        time.sleep(0.1)
    die_at(f"step {done}")

def log(metrics, step):
    if "validation/loss" in metrics:
        die_at(f"evaluation {step}")
    if not metrics:
        die_at("end")

for name in ("save_model", "_save_optimizer_and_scheduler", "_save_rng_state"):
    def wrapped(self, *arguments, original=getattr(AdapterTrainer, name), name=name, **keywords):
        original(self, *arguments, **keywords)
        die_at(f"checkpoint {self.state.global_step} after {name}")
    setattr(AdapterTrainer, name, wrapped)

finetune(
    resolve_task(TaskSpec.model_validate_json(spec)), Path(data), Path(target),
    checkpoints=Path(checkpoints), progress=watch, log_metrics=log,
)
"""

DROPOUT = {"hidden_dropout": 0.1}
# Six steps an epoch, and a checkpoint every two; with early stopping at the end of each epoch.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "lora": {"train": {"epochs": 3, **DROPOUT}},
    "p-tuning": {"method": "p-tuning", "train": {"epochs": 2, **DROPOUT}},
    "full": {"method": "full", "train": {"epochs": 2, "learning_rate": 1e-3, **DROPOUT}},
    "accumulation": {"train": {"epochs": 3, "batch_size": 8, "gradient_accumulation": 2, **DROPOUT}},
    "steps": {"train": {"epochs": None, "steps": 10, **DROPOUT}},
    "fraction": {"train": {"epochs": 1.5, **DROPOUT}},
    "bf16": {"train": {"epochs": 2, "precision": "bf16", **DROPOUT}},
    "stopping": {
        "train": {"epochs": 12, "learning_rate": 0.05, "early_stopping": {"patience": 2}, **DROPOUT}
    },
}
# Configuration, moment, the step that training goes on from; None: that at which it stopped early.
MOMENTS: list[tuple[str, str, int | None]] = [
    ("lora", "step 1", 0),
    ("lora", "checkpoint 2 after _save_rng_state", 0),
    # A checkpoint lies at the end of the epoch, and the evaluation after it draws random numbers of its own.
    ("lora", "evaluation 6", 6),
    ("lora", "step 11", 10),
    ("lora", "checkpoint 10 after save_model", 8),
    ("lora", "end", 18),
    # PEFT's own checkpoints would lack the encoder.
    ("p-tuning", "step 7", 6),
    ("full", "step 9", 8),
    ("accumulation", "step 9", 8),
    # The last checkpoint lies in the middle of an epoch, of which nothing is left to do.
    ("steps", "end", 10),
    ("fraction", "end", 9),
    ("bf16", "step 9", 8),
    # Patience has to be remembered, and that it ran out.
    ("stopping", "step 13", 12),
    ("stopping", "end", None),
]

StartTraining = Callable[[TaskSpec, Path, str], Any]


@pytest.fixture
def start_training(start_child: Callable[..., Any], tiny_data: Callable[[str], Path]) -> StartTraining:
    def start(spec: TaskSpec, folder: Path, moment: str) -> Any:
        data = tiny_data(spec.name.removeprefix("tiny-"))
        places = (data, folder / "candidate", folder / "checkpoints")
        return start_child(_TRAIN, spec.model_dump_json(), *places, moment)

    return start


def read_weights(folder: Path) -> bytes:
    return (folder / "candidate" / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.fixture
def left_alone(
    start_training: StartTraining,
    make_spec: Callable[..., TaskSpec],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[TaskSpec, Path]]:
    """Return a function from a configuration to its task and the folder of a training that nobody killed."""

    def find(name: str) -> tuple[TaskSpec, Path]:
        spec = make_spec(**CONFIGURATIONS[name])
        folder = tmp_path_factory.getbasetemp() / f"left-alone-{name}"
        if not folder.is_dir():
            child = start_training(spec, folder, "never")
            assert child.wait() == 0, child.log.read_text()
        return spec, folder

    return find


@pytest.mark.parametrize(("name", "moment", "resumed_from"), MOMENTS)
def test_a_killed_training_ends_with_the_same_weights(
    start_training: StartTraining,
    left_alone: Callable[[str], tuple[TaskSpec, Path]],
    tmp_path: Path,
    name: str,
    moment: str,
    resumed_from: int | None,
) -> None:
    spec, expected = left_alone(name)
    killed = start_training(spec, tmp_path, moment)
    assert killed.wait() == -signal.SIGKILL, f"it did not come to {moment}: {killed.log.read_text()}"
    assert not (tmp_path / "candidate" / "adapter").exists()
    assert not (tmp_path / "candidate" / "training.json").exists()
    again = start_training(spec, tmp_path, "never")
    assert again.wait() == 0, again.log.read_text()
    summary, undisturbed = (TrainingSummary.load(folder / "candidate") for folder in (tmp_path, expected))
    if resumed_from is None:
        assert undisturbed.steps < 72, "it did not stop early"
        resumed_from = undisturbed.steps
    assert summary.resumed_from == resumed_from
    assert summary.steps == undisturbed.steps
    assert summary.loss == pytest.approx(undisturbed.loss)
    assert read_weights(tmp_path) == read_weights(expected)


def test_a_training_that_is_killed_again_and_again_gets_there(
    start_training: StartTraining, left_alone: Callable[[str], tuple[TaskSpec, Path]], tmp_path: Path
) -> None:
    # From outside, at whatever moment: shortly after a new checkpoint appears.
    spec, expected = left_alone("lora")
    seen: set[str] = set()
    for _ in range(3):
        child = start_training(spec, tmp_path, "slowly")
        deadline = time.monotonic() + 60
        while not (new := {path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")} - seen):
            assert time.monotonic() < deadline, child.log.read_text()
            time.sleep(0.02)
        seen |= new
        child.kill()
        assert child.wait() == -signal.SIGKILL, child.log.read_text()
    child = start_training(spec, tmp_path, "never")
    assert child.wait() == 0, child.log.read_text()
    assert TrainingSummary.load(tmp_path / "candidate").resumed_from > 0
    assert read_weights(tmp_path) == read_weights(expected)


def test_a_half_written_checkpoint_is_passed_over(
    start_training: StartTraining, left_alone: Callable[[str], tuple[TaskSpec, Path]], tmp_path: Path
) -> None:
    spec, expected = left_alone("lora")
    killed = start_training(spec, tmp_path, "step 9")
    assert killed.wait() == -signal.SIGKILL
    state = tmp_path / "checkpoints" / "checkpoint-8" / "trainer_state.json"
    state.write_bytes(state.read_bytes()[:100])
    again = start_training(spec, tmp_path, "never")
    assert again.wait() == 0, again.log.read_text()
    assert TrainingSummary.load(tmp_path / "candidate").resumed_from == 6
    assert read_weights(tmp_path) == read_weights(expected)


@pytest.mark.parametrize("name", ["lora", "stopping"])
def test_checkpoints_may_be_moved(
    start_training: StartTraining,
    left_alone: Callable[[str], tuple[TaskSpec, Path]],
    tmp_path: Path,
    name: str,
) -> None:
    # A volume is mounted elsewhere, or a project is moved.
    spec, expected = left_alone(name)
    killed = start_training(spec, tmp_path / "before", "end")
    assert killed.wait() == -signal.SIGKILL
    shutil.move(tmp_path / "before", tmp_path / "after")
    again = start_training(spec, tmp_path / "after", "never")
    assert again.wait() == 0, again.log.read_text()
    assert read_weights(tmp_path / "after") == read_weights(expected)
