"""Training throughput of a causal model: Lorry's fine-tuning against a plain transformers.Trainer with PEFT.

    python infra/demo/fetch_gemma.py ./gemma-3-270m
    python tests/benchmarks/bench_causal.py --base ./gemma-3-270m --data FOLDER [--rows 256]

LoRA r=8 on E2E, loss on the answers alone, one epoch, with the same rows, batches, learning rate and seed.
The baseline is what one writes first: Trainer with PEFT, prompts masked in the labels, batches padded to
their longest. Lorry puts rows of like length together, computes the output layer, as wide as the vocabulary,
only where an answer is, and keeps frozen weights in the format that the processor is fast in. With packing,
the rows of a batch stand behind one another instead of being padded. FOLDER holds ``e2e_nlg`` (default: the
environment's LORRY_TEST_DATA).

Prints rows a second, the peak of memory of each training's process, and the loss of the answers on the same
held-out rows by the same code, with the ratios to the baseline.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorry_components.process_setup import quiet_libraries
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.prepare_data.step import Example, load_part, prepare_data
from lorry_components.tasks.definition import load_task_file
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.training_summary import ADAPTER_FOLDER
from lorry_registry.tasks.task_spec import TaskSpec

# What reads the data sets and writes task files is shared with the experiments.
sys.path.insert(0, str(Path(__file__).parent / "experiments"))

from compare_methods_on_glue import (
    DataSet,
    read_rows,
    shuffle_rows,
    write_document,
    write_rows,
)
from generation_tasks import describe_task

_HELD_OUT = 50
_IGNORED = -100
TEMPLATE = "Describe: {text}\nSentence:"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a training took, and the mean loss of a token of the held-out answers.

    Attributes:
        rows_per_second: Training rows.
        peak_bytes: The most memory that its process had resident.
        loss: In nats.
    """

    rows_per_second: float
    peak_bytes: int
    loss: float


def main() -> None:
    """Measure all, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=os.environ.get("LORRY_TEST_DATA"))
    parser.add_argument("--rows", type=int, default=256)
    chosen = parser.parse_args()
    if chosen.data is None:
        parser.error("give --data FOLDER, or set LORRY_TEST_DATA")
    contenders: Mapping[str, tuple[Callable[[TaskSpec, Path, Path], float], tuple[str, ...]]] = {
        "Trainer + PEFT": (train_plainly, ()),
        "lorry": (train_with_lorry, ()),
        "lorry, packed": (train_with_lorry, ("train.packing=true",)),
    }
    results: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        task = _write_task(chosen.base.resolve(), chosen.data, folder, chosen.rows)
        prepare_data(resolve_task(load_task_file(task)), folder / "prepared")
        for number, (name, (train, overrides)) in enumerate(contenders.items()):
            spec = load_task_file(task, overrides)
            results[name] = _measure(train, spec, folder / "prepared", folder / str(number))
            found = results[name]
            peak = found.peak_bytes / 2**30
            speed = f"{found.rows_per_second:6.2f} rows/s"
            print(f"{name:<16} {speed}   peak {peak:5.2f} GiB   loss {found.loss:.4f}", flush=True)
    plain = results["Trainer + PEFT"]
    print()
    for name, found in results.items():
        print(
            f"{name:<16} {found.rows_per_second / plain.rows_per_second:5.2f}x   "
            f"memory {found.peak_bytes / plain.peak_bytes:.2f}x   loss {found.loss - plain.loss:+.4f}"
        )


def _write_task(base: Path, data: Path, folder: Path, rows: int) -> Path:
    train = shuffle_rows(DataSet("e2e_nlg", {}, "bleu"), data)[:rows]
    held_out = list(read_rows(data / "e2e_nlg", ("validation",)))[:_HELD_OUT]
    write_rows(folder, {"train": train, "validation": held_out[:10], "test": held_out})
    document = describe_task("bench", base, folder, {"text": "mr", "label": "ref"})
    document["data"] |= {"template": f"{TEMPLATE} {{label}}", "max_length": 160, "duplicates": "keep"}
    document["train"] |= {"epochs": 1, "learning_rate": 1e-3, "batch_size": 16}
    return write_document(folder, document)


def _measure(
    train: Callable[[TaskSpec, Path, Path], float], spec: TaskSpec, data: Path, target: Path
) -> Measured:
    """Train in a process of its own, so that its peak of memory is its own."""
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[Measured] = context.Queue()
    process = context.Process(target=_train_and_tell, args=(train, spec, data, target, queue))
    process.start()
    measured = queue.get()
    process.join()
    return measured


def _train_and_tell(
    train: Callable[[TaskSpec, Path, Path], float], spec: TaskSpec, data: Path, target: Path, queue: Any
) -> None:
    quiet_libraries()
    warnings.simplefilter("ignore")
    rows_per_second = train(spec, data, target)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    queue.put(Measured(rows_per_second, peak, _score(spec, data, target / ADAPTER_FOLDER)))


def train_with_lorry(spec: TaskSpec, data: Path, target: Path) -> float:
    """Train as a run does; the time is that of the training loop, validation included."""
    return finetune(resolve_task(spec), data, target, checkpoints=target / "checkpoints").examples_per_second


def train_plainly(spec: TaskSpec, data: Path, target: Path) -> float:
    """Train with Trainer, PEFT and dynamic padding, as their documentation shows."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    tokenizer = AutoTokenizer.from_pretrained(spec.base.model)
    set_seed(spec.train.seed)
    model = AutoModelForCausalLM.from_pretrained(spec.base.model)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16))
    train, validation = (
        Dataset.from_list([_encode(tokenizer, example, spec) for example in load_part(data, part)])
        for part in ("train", "validation")
    )
    trainer = Trainer(
        model=adapted,
        args=TrainingArguments(
            output_dir=str(target),
            num_train_epochs=spec.train.epochs or 1.0,
            per_device_train_batch_size=spec.train.batch_size,
            per_device_eval_batch_size=spec.train.batch_size,
            learning_rate=spec.train.learning_rate or 1e-3,
            eval_strategy="epoch",
            prediction_loss_only=True,
            save_strategy="no",
            seed=spec.train.seed,
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
            report_to="none",
        ),
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=_IGNORED),
        train_dataset=train,
        eval_dataset=validation,
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    adapted.save_pretrained(target / ADAPTER_FOLDER)
    return len(train) * (spec.train.epochs or 1.0) / seconds


def _encode(tokenizer: Any, example: Example, spec: TaskSpec) -> dict[str, list[int]]:
    prompt = tokenizer(TEMPLATE.format(text=example.row["text"]))["input_ids"]
    answer = tokenizer(f" {example.label}", add_special_tokens=False)["input_ids"]
    answer = [*answer, tokenizer.eos_token_id][: spec.data.max_target]
    ids = [*prompt, *answer]
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "labels": [*[_IGNORED] * len(prompt), *answer],
    }


def _score(spec: TaskSpec, data: Path, adapter: Path) -> float:
    """Return the mean loss of a token of the test answers, in fp32, one row at a time."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(spec.base.model)
    base = AutoModelForCausalLM.from_pretrained(spec.base.model)
    model = PeftModel.from_pretrained(base, adapter).eval()
    total, tokens = 0.0, 0
    for example in load_part(data, "test"):
        features = {name: torch.tensor([ids]) for name, ids in _encode(tokenizer, example, spec).items()}
        count = int((features["labels"] != _IGNORED).sum())
        with torch.inference_mode():
            total += float(model(**features).loss) * count
        tokens += count
    return total / tokens


if __name__ == "__main__":
    main()
