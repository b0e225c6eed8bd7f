"""RAFT twitter_complaints on its 50 labelled tweets: methods on all-MiniLM-L6-v2, by cross-validation.

    python tests/benchmarks/experiments/raft_folds.py --data FOLDER [--results DIR]

RAFT keeps the labels of its test part to itself, so each of five folds of ten tweets is the test part once,
and the training has 32 of the other 40 (8 are for validation). FOLDER holds ``raft_twitter_complaints``
(default: the environment's LORRY_TEST_DATA). Ends in a table in Markdown: the share of the 50 tweets that
each method gets right, with Wilson's interval.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compare_methods_on_glue import DataSet, compare, describe_task, shuffle_rows, write_document, write_rows

_FOLDS = 5
_VALIDATION = 8
METHODS = ("full", "bitfit", "adapter-p", "lora:r=8;targets=[query,value]")
RAFT = DataSet("raft_twitter_complaints", {"text": "text", "label": "label"}, "accuracy")


def main() -> None:
    """Compare the methods on each fold, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("LORRY_TEST_DATA"))
    parser.add_argument("--results", type=Path, default=Path("tests/benchmarks/measurements/raft"))
    parser.add_argument(
        "--output", type=Path, default=Path(".lorry/experiments/raft"), help="for the parts of the data"
    )
    parser.add_argument("--jobs", default="1")
    chosen = parser.parse_args()
    if chosen.data is None:
        parser.error("give --data FOLDER, or set LORRY_TEST_DATA")
    tweets = shuffle_rows(RAFT, chosen.data)
    folds = [_compare_fold(tweets, number, chosen) for number in range(_FOLDS)]
    print("| method | right of 50 | accuracy | 95 % interval | trained parameters |\n|---|---|---|---|---|")
    for rows in zip(*folds, strict=True):
        right = round(sum(row["value"] * len(tweets) / _FOLDS for row in rows))
        low, high = find_wilson_interval(right, len(tweets))
        print(
            f"| {rows[0]['label']} | {right} | {right / len(tweets):.2f} | {low:.2f} to {high:.2f} | "
            f"{rows[0]['trained_parameters']:,} |"
        )


def _compare_fold(tweets: Sequence[Any], number: int, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    test = tweets[number::_FOLDS]
    others = [tweet for index, tweet in enumerate(tweets) if index % _FOLDS != number]
    folder = chosen.output / str(number)
    write_rows(folder, {"test": test, "validation": others[:_VALIDATION], "train": others[_VALIDATION:]})
    document = describe_task(f"raft-{number}", RAFT, folder)
    document["train"] |= {"epochs": 20, "batch_size": 8}
    path = write_document(folder, document)
    return compare(path, METHODS, "0", chosen.results / f"fold-{number}.json", jobs=chosen.jobs)


def find_wilson_interval(right: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (E. B. Wilson, JASA 22, 1927)."""
    z, share = 1.959964, right / total
    middle = share + z**2 / (2 * total)
    reach = z * (share * (1 - share) / total + z**2 / (4 * total**2)) ** 0.5
    return (middle - reach) / (1 + z**2 / total), (middle + reach) / (1 + z**2 / total)


if __name__ == "__main__":
    main()
