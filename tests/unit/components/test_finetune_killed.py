"""A training that is killed and run again ends with the same weights as one that was left alone."""

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.finetune.summary import TrainingSummary
from lorry_registry.task_spec import TaskSpec

# Trains a task, and kills itself at a moment that its last argument names.
_TRAIN = """
import os, signal, sys, time
from pathlib import Path
from lorry_components.finetune.step import finetune
from lorry_components.finetune.trainer import AdapterTrainer
from lorry_registry.task_spec import TaskSpec

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

for name in ("_save", "_save_optimizer_and_scheduler", "_save_rng_state"):
    def wrapped(self, *arguments, original=getattr(AdapterTrainer, name), name=name, **keywords):
        original(self, *arguments, **keywords)
        die_at(f"checkpoint {self.state.global_step} after {name}")
    setattr(AdapterTrainer, name, wrapped)

finetune(
    TaskSpec.model_validate_json(spec), Path(data), Path(target),
    checkpoints=Path(checkpoints), progress=watch, log_metrics=log,
)
"""

Train = Callable[..., Any]

DROPOUT = {"hidden_dropout": 0.1}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    # 84 rows in batches of 16: six steps an epoch, a checkpoint every two.
    "lora": {"train": {"epochs": 3, **DROPOUT}},
    "p-tuning": {"method": "p-tuning", "train": {"epochs": 2, **DROPOUT}},
    "full": {"method": "full", "train": {"epochs": 2, "learning_rate": 1e-3, **DROPOUT}},
    "classification": {"task": "classification", "train": {"epochs": 2, **DROPOUT}},
    "accumulation": {"train": {"epochs": 3, "batch_size": 8, "gradient_accumulation": 2, **DROPOUT}},
    "steps": {"train": {"epochs": None, "steps": 10, **DROPOUT}},
    "fraction": {"train": {"epochs": 1.5, **DROPOUT}},
    "bf16": {"train": {"epochs": 2, "precision": "bf16", **DROPOUT}},
    "stopping": {
        "train": {"epochs": 12, "learning_rate": 0.05, "early_stopping": {"patience": 2}, **DROPOUT},
    },
}


@pytest.fixture
def train(start_child: Train, tiny_data: Callable[[str], Path]) -> Train:
    def start(spec: TaskSpec, folder: Path, moment: str = "") -> Any:
        data = tiny_data(spec.name.removeprefix("tiny-"))
        return start_child(
            _TRAIN, spec.model_dump_json(), data, folder / "candidate", folder / "checkpoints", moment
        )

    return start


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, int]]:
    """What uninterrupted trainings led to, by configuration."""
    return {}


def read_weights(folder: Path) -> bytes:
    return (folder / "candidate" / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_x(name, make_spec, train, tmp_path):
    c = dict(CONFIGURATIONS[name])
    task = c.pop("task", "regression")
    method = c.pop("method", "lora")
    spec = make_spec(task, method, **c)
    t = time.time()
    ch = train(spec, tmp_path / "a")
    assert ch.wait() == 0, ch.log.read_text()
    a = read_weights(tmp_path / "a")
    s = TrainingSummary.load(tmp_path / "a" / "candidate")
    print(
        name,
        "alone",
        s.steps,
        time.time() - t,
        sorted(p.name for p in (tmp_path / "a" / "checkpoints").iterdir()),
    )
    ch = train(spec, tmp_path / "b")
    assert ch.wait() == 0
    print("repeat", read_weights(tmp_path / "b") == a)
    for moment in [
        *(f"step {i}" for i in range(1, s.steps + 1)),
        *(f"evaluation {i}" for i in range(1, s.steps + 1)),
        "end",
        *(
            f"checkpoint {i} after {n}"
            for i in range(1, s.steps + 1)
            for n in ("_save", "_save_optimizer_and_scheduler", "_save_rng_state")
        ),
    ]:
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        ch = train(spec, tmp_path / "c", moment)
        r = ch.wait()
        if r == 0:
            continue
        cps = (
            sorted(p.name for p in (tmp_path / "c" / "checkpoints").iterdir())
            if (tmp_path / "c" / "checkpoints").exists()
            else None
        )
        ch = train(spec, tmp_path / "c")
        st = ch.wait()
        if st:
            print(moment, cps, "FAILED", ch.log.read_text()[-600:])
            continue
        s2 = TrainingSummary.load(tmp_path / "c" / "candidate")
        print(
            moment,
            r,
            cps,
            s2.resumed_from,
            s2.steps,
            "same" if read_weights(tmp_path / "c") == a else "DIFFERENT",
        )
