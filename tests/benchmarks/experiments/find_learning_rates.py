"""Which learning rate each method should start from: the evidence behind the defaults.

    python tests/benchmarks/experiments/find_learning_rates.py --data FOLDER [--tasks sst2,snli]

Trains each method on 2,000 rows of each data set with rates a factor of about three apart, and scores on
1,000 other rows of train, so that no test part is looked at. FOLDER is as for ``compare_methods_on_glue.py``.
What was found of a method on a data set is kept in the folder of results, and not measured again while its
file is there. Ends in a table in Markdown: the metrics at each rate, the rate with the best mean in bold.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compare_methods_on_glue import (
    DATA_SETS,
    compare,
    describe_task,
    shuffle_rows,
    write_document,
    write_rows,
)

_TRAINED, _HELD_OUT = 2000, 1000
RATES: Mapping[str, Sequence[str]] = {
    "full": ("2e-5", "5e-5", "1.5e-4", "5e-4"),
    "ft-top": ("5e-5", "1.5e-4", "5e-4", "1.5e-3"),
    "bitfit": ("5e-4", "1.5e-3", "5e-3", "1.5e-2"),
    "adapter-h": ("3e-4", "1e-3", "3e-3", "1e-2"),
    "adapter-p": ("1e-3", "3e-3", "1e-2"),
    "adapter-l": ("3e-4", "1e-3", "3e-3", "1e-2"),
    "adapter-d": ("3e-4", "1e-3", "3e-3", "1e-2"),
    "prelayer": ("1e-3", "5e-3", "1.5e-2", "5e-2"),
    "lora:r=8;targets=[query,value]": ("5e-4", "1e-3", "2e-3", "5e-3"),
    "adalora": ("1e-3", "3e-3", "1e-2", "3e-2"),
    "vera": ("4e-3", "1.5e-2", "5e-2", "1.5e-1"),
    "ia3": ("1.5e-3", "5e-3", "1.5e-2", "5e-2"),
    "prompt-tuning": ("3e-3", "1e-2", "3e-2", "1e-1"),
    "p-tuning": ("5e-4", "1.5e-3", "5e-3", "1.5e-2"),
    "p-tuning-v2": ("1.5e-3", "5e-3", "1.5e-2", "5e-2"),
}


def main() -> None:
    """Train every method at every rate, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("LORRY_TEST_DATA"))
    parser.add_argument("--tasks", default="sst2,snli")
    parser.add_argument("--methods", default=",".join(name.partition(":")[0] for name in RATES))
    parser.add_argument("--results", type=Path, default=Path("tests/benchmarks/measurements/rates"))
    parser.add_argument(
        "--output", type=Path, default=Path(".lorry/experiments/rates"), help="for the parts of the data"
    )
    parser.add_argument("--jobs", default="1")
    chosen = parser.parse_args()
    if chosen.data is None:
        parser.error("give --data FOLDER, or set LORRY_TEST_DATA")
    wanted = chosen.methods.split(",")
    methods = [name for name in RATES if name.partition(":")[0] in wanted]
    names = chosen.tasks.split(",")
    tables = {name: _sweep(name, methods, chosen) for name in names}
    _print_table(methods, tables)


def _sweep(name: str, methods: Sequence[str], chosen: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the row of each method and rate on a data set."""
    folder = chosen.output / name
    data_set = DATA_SETS[name]
    shuffled = shuffle_rows(data_set, chosen.data)
    write_rows(
        folder,
        {
            "test": shuffled[:_HELD_OUT],
            "validation": shuffled[_HELD_OUT : _HELD_OUT + 100],
            "train": shuffled[_HELD_OUT + 100 :][:_TRAINED],
        },
    )
    path = write_document(folder, describe_task(f"rates-{name}", data_set, folder))
    rows: dict[str, dict[str, Any]] = {}
    for method in methods:
        results = chosen.results / f"{name}-{method.partition(':')[0]}.json"
        rated = [_rate(method, rate) for rate in RATES[method]]
        # One a rate, in the order in which they were asked for; the linear probe that is compared as well has
        # none.
        compared = compare(path, rated, "0", results, jobs=chosen.jobs)
        found = [row for row in compared if row["method"] != "probe"]
        rows |= {f"{method}@{rate}": row for rate, row in zip(RATES[method], found, strict=True)}
    return rows


def _rate(method: str, rate: str) -> str:
    return f"{method}{';' if ':' in method else ':'}train.learning_rate={rate}"


def _print_table(methods: Sequence[str], tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a row a method: at each rate the metric of each data set."""
    print(f"| method | learning rate: {', '.join(tables)} |")
    print("|---|---|")
    for method in methods:
        means = {
            rate: sum(table[f"{method}@{rate}"]["value"] for table in tables.values()) / len(tables)
            for rate in RATES[method]
        }
        cells = []
        for rate in RATES[method]:
            values = ", ".join(f"{table[f'{method}@{rate}']['value']:.3f}" for table in tables.values())
            mark = "**" if means[rate] == max(means.values()) else ""
            cells.append(f"{mark}{rate}: {values}{mark}")
        print(f"| `{method.partition(':')[0]}` | {' · '.join(cells)} |")


if __name__ == "__main__":
    main()
