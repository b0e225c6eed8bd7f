"""Recipes compared where rows are few: how many optimiser steps, of which batch size, under which head.

On each data set, with 50, 200 and 800 training rows and each seed, on the same rows: the linear probe, and
each method by recipes that differ in nothing else than their names say: the batch size, the least number of
steps, and the head as in ``bench_heads.py``. The first recipe is three epochs of batches of 32, whatever that
comes to.

    python tests/benchmarks/bench_small_data.py --data FOLDER --results FOLDER \\
        [--methods lora,bitfit] [--heads mean/probe] [--recipes '100 of 8,300 of 8']

Which recipe is better is decided on the validation rows; the figures of the test rows are shown beside, with
the paired difference to the probe. Results are kept, and what is there is not measured again.
"""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_heads import Variant, print_result, print_table, run

from lorry_components.process_setup import quiet_libraries

SETS = ("trec", "sms_spam", "sst2_glue", "mrpc", "stsb")
SIZES = (50, 200, 800)
METHODS: Mapping[str, Mapping[str, Any]] = {
    "lora": {"name": "lora", "r": 8, "targets": ["query", "value"]},
    "boft": {"name": "peft", "type": "BOFT"},
    **{
        name: {"name": name}
        for name in (
            *("bitfit", "adapter-h", "adapter-p", "adapter-l", "adapter-d", "prelayer", "adalora", "vera"),
            *("ia3", "prompt-tuning", "p-tuning", "p-tuning-v2", "ft-top", "full"),
        )
    },
}
HEADS: Mapping[str, Mapping[str, Any]] = {
    "first/random": {"head": {"pooling": "transformers"}},
    "mean/random": {"head": {"pooling": "auto"}},
    "mean/probe": {"head": {"pooling": "auto", "init": "probe"}},
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long is trained.

    Attributes:
        batch_size: Rows in a batch.
        least_steps: Optimiser steps that three epochs are prolonged to.
    """

    batch_size: int
    least_steps: int

    def describe(self, rows: int) -> dict[str, Any]:
        """Return the section of a task file for so many training rows."""
        usual = 3 * math.ceil(rows / self.batch_size)
        return {"batch_size": self.batch_size, "steps": max(usual, self.least_steps)}


RECIPES: Mapping[str, Recipe] = {
    "3 epochs": Recipe(32, 0),
    "100 steps": Recipe(32, 100),
    "300 steps": Recipe(32, 300),
    "100 of 8": Recipe(8, 100),
    "300 of 8": Recipe(8, 300),
}


def list_variants(
    rows: int, *, methods: Sequence[str], heads: Sequence[str], recipes: Sequence[str]
) -> Iterator[Variant]:
    """Yield the probe, and every method by every recipe under every head."""
    yield Variant("probe", {"method": {"name": "probe"}})
    for method in methods:
        for head in heads:
            for recipe in recipes:
                length = RECIPES[recipe].describe(rows)
                yield Variant(
                    f"{method} {head} {recipe}",
                    {"method": METHODS[method], "train": length, **HEADS[head]},
                )


def main() -> None:
    """Measure what the command line asks for, and print it as it comes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True, help="a folder, with a file for each size")
    parser.add_argument("--sets", type=lambda text: text.split(","), default=list(SETS))
    parser.add_argument("--methods", type=lambda text: text.split(","), default=["lora"])
    parser.add_argument("--heads", type=lambda text: text.split(","), default=list(HEADS))
    parser.add_argument("--recipes", type=lambda text: text.split(","), default=list(RECIPES))
    parser.add_argument("--sizes", type=lambda text: [int(part) for part in text.split(",")], default=SIZES)
    parser.add_argument(
        "--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1, 2]
    )
    parser.add_argument("--cache", type=Path, default=Path(".lorry/cache/features"))
    given = parser.parse_args()
    quiet_libraries()
    given.results.mkdir(parents=True, exist_ok=True)
    for rows in given.sizes:
        options = argparse.Namespace(
            **{**vars(given), "rows": rows, "test_rows": 1000, "epochs": 3.0},
        )
        options.results = given.results / f"{rows}.jsonl"
        results = []
        variants = list_variants(rows, methods=given.methods, heads=given.heads, recipes=given.recipes)
        for result in run(options, list(variants)):
            results.append(result)
            print_result(result)
        print(f"\n{rows} rows")
        print_table(results)


if __name__ == "__main__":
    main()
