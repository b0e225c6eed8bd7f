"""Training throughput: Lorry's fine-tuning against a plain transformers.Trainer with PEFT.

Both train LoRA r=8 on query and value of all-MiniLM-L6-v2, on the same rows, with the same batch size,
learning rate, schedule, epochs, dropout of the hidden layers and seeds. The baseline is what one writes
first: Trainer with dynamic padding. Lorry's differs in what it does with the hardware: batches of like
length, no attention dropout, frozen weights in the format that the processor is fast in, dropout by bytes.
A third way adapts the top layers only, and computes the outputs of the frozen layers below them once.

    python tests/benchmarks/bench_training.py [--task pipelines/tasks/sentiment_tweets.yaml] [--seeds 3]

Prints rows a second and the test metric of all, and the ratios and differences to the baseline.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lorry_components.inference import assemble_adapter
from lorry_components.models.bases import resolve_base
from lorry_components.process_setup import quiet_libraries
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.prepare_data.step import Example, load_part, prepare_data
from lorry_components.task_types import TaskType
from lorry_components.tasks.definition import find_method, find_task_type, load_task_file
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.training_summary import ADAPTER_FOLDER
from lorry_registry.tasks.task_spec import TaskSpec

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Measured:
    """Rows trained a second, and the primary metric on the test rows."""

    rows_per_second: float
    metric: float


BASELINE = "Trainer + PEFT"
TOP_LAYERS = 2


@dataclass(frozen=True, slots=True)
class Contender:
    """A way of training.

    Attributes:
        name: What to call it.
        train: Trains a task on prepared data into a folder.
        overrides: What it changes in the task.
        wanted: How many times as fast as the baseline it should be.
    """

    name: str
    train: Callable[[TaskSpec, Path, Path], Measured]
    overrides: tuple[str, ...] = ()
    wanted: float = 1.0


def main() -> None:
    """Measure all, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", type=Path, default=REPOSITORY / "pipelines/tasks/sentiment_tweets.yaml")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=2.0)
    chosen = parser.parse_args()
    quiet_libraries()
    warnings.simplefilter("ignore")
    overrides = [f"train.epochs={chosen.epochs}", "train.hidden_dropout=null"]
    contenders = [
        Contender(BASELINE, train_plainly),
        Contender("lorry", train_with_lorry, wanted=3.0),
        Contender(
            f"lorry, top {TOP_LAYERS} layers",
            train_with_lorry,
            (f"method.layers={TOP_LAYERS}", "train.cache_frozen_layers=true"),
            wanted=6.0,
        ),
    ]
    results: dict[str, list[Measured]] = {contender.name: [] for contender in contenders}
    with tempfile.TemporaryDirectory() as scratch:
        spec = load_task_file(chosen.task, overrides)
        data = Path(scratch) / "data"
        prepare_data(resolve_task(spec), data)
        for seed in range(chosen.seeds):
            for number, contender in enumerate(contenders):
                seeded = load_task_file(chosen.task, [*overrides, *contender.overrides, f"train.seed={seed}"])
                measured = contender.train(seeded, data, Path(scratch) / f"{seed}-{number}")
                results[contender.name].append(measured)
                print(
                    f"seed {seed}  {contender.name:<19} {measured.rows_per_second:7.1f} rows/s   "
                    f"metric {measured.metric:.4f}",
                    flush=True,
                )
    report(contenders, results)


def report(contenders: Sequence[Contender], results: Mapping[str, Sequence[Measured]]) -> None:
    """Print means, and the ratios of throughputs and differences of metrics to the baseline."""
    means = {
        name: Measured(
            statistics.mean(run.rows_per_second for run in runs), statistics.mean(run.metric for run in runs)
        )
        for name, runs in results.items()
    }
    plain = means[BASELINE]
    print()
    for contender in contenders:
        mean = means[contender.name]
        compared = (
            f"   {mean.rows_per_second / plain.rows_per_second:.2f}x (wanted: {contender.wanted:g}x)"
            f"   metric {mean.metric - plain.metric:+.4f}"
            if contender.name != BASELINE
            else ""
        )
        print(f"{contender.name:<19} {mean.rows_per_second:7.1f} rows/s   metric {mean.metric:.4f}{compared}")


def train_with_lorry(spec: TaskSpec, data: Path, target: Path) -> Measured:
    """Train as a run does; the time is that of the training loop, validation included."""
    summary = finetune(resolve_task(spec), data, target, checkpoints=target / "checkpoints")
    predictor = assemble_adapter(
        target / ADAPTER_FOLDER,
        base=resolve_base(spec.base),
        task_type=find_task_type(spec),
        method=find_method(spec),
        labels=summary.labels,
    )
    examples = load_part(data, "test")
    outputs = predictor.compute_outputs([example.row for example in examples])
    return Measured(
        summary.examples_per_second, score(spec, find_task_type(spec), examples, outputs, summary.labels)
    )


def train_plainly(spec: TaskSpec, data: Path, target: Path) -> Measured:
    """Train with Trainer, PEFT and dynamic padding, as their documentation shows."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    folder = resolve_base(spec.base).folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    set_seed(spec.train.seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, problem_type="regression"
    )
    options = spec.method.options
    config = LoraConfig(
        task_type="SEQ_CLS", r=options["r"], lora_alpha=options["alpha"], target_modules=options["targets"]
    )
    adapted = get_peft_model(model, config)

    def encode(part: str) -> Any:
        examples = load_part(data, part)
        table = Dataset.from_dict(
            {"text": [e.row["text"] for e in examples], "labels": [float(e.label) for e in examples]}
        )
        return table.map(
            lambda rows: tokenizer(rows["text"], truncation=True, max_length=spec.data.max_length),
            batched=True,
            remove_columns=["text"],
        )

    train, validation = encode("train"), encode("validation")
    trainer = Trainer(
        model=adapted,
        args=TrainingArguments(
            output_dir=str(target),
            num_train_epochs=spec.train.epochs or 3.0,
            per_device_train_batch_size=spec.train.batch_size,
            per_device_eval_batch_size=2 * spec.train.batch_size,
            learning_rate=spec.train.learning_rate or 2e-3,
            eval_strategy="epoch",
            save_strategy="no",
            seed=spec.train.seed,
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
            report_to="none",
        ),
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=train,
        eval_dataset=validation,
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    examples = load_part(data, "test")
    outputs = trainer.predict(encode("test")).predictions
    rows = len(train) * (spec.train.epochs or 3.0)
    return Measured(rows / seconds, score(spec, find_task_type(spec), examples, outputs, None))


def score(
    spec: TaskSpec, task_type: TaskType, examples: list[Example], outputs: Any, labels: tuple[str, ...] | None
) -> float:
    """Return the primary metric."""
    primary = spec.evaluate.primary or task_type.primary
    targets = [example.label for example in examples]
    scores = task_type.score_training(np.asarray(outputs, dtype=np.float32), targets, labels, [primary])
    return (scores or {})[primary]


if __name__ == "__main__":
    main()
