"""The demo's four tasks on other splits of their data: what a single split does not say.

    python tests/benchmarks/experiments/demo_splits.py [--seeds 0,1,2,3,4] [--results DIR]

Each task is trained and judged as `make run` does it, with another `data.split.seed` and a registry of its
own each time; the recipe stays what it is. Ends in a table in Markdown: the mean of the test metric over the
splits, and its range. Each split takes as long as `make run`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[3]


def main() -> None:
    """Train what has no file yet, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "tests/benchmarks/measurements/demo")
    chosen = parser.parse_args()
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    splits = [find_split(seed, chosen.results / f"split-{seed}.json") for seed in seeds]
    print("| task | metric | " + " | ".join(f"split {seed}" for seed in seeds) + " | mean | range |")
    print("|---" * (len(seeds) + 4) + "|")
    for rows in zip(*splits, strict=True):
        values = [float(row["value"]) for row in rows]
        shown = " | ".join(f"{value:.3f}" for value in values)
        print(
            f"| {rows[0]['task']} | {rows[0]['metric']} | {shown} | {statistics.mean(values):.3f} | "
            f"{min(values):.3f} to {max(values):.3f} |"
        )


def find_split(seed: int, path: Path) -> list[dict[str, Any]]:
    """Return the four tasks' results on a split, which are measured if they have no file."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(measure_split(seed), indent=2) + "\n", "utf-8")
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
    return found


def measure_split(seed: int) -> list[dict[str, Any]]:
    """Run the four tasks on a split, and return what is compared of each."""
    tasks = sorted(str(path) for path in (REPOSITORY / "pipelines/tasks").glob("*.yaml"))
    command = [str(Path(sys.executable).with_name("lorry")), "run", "--json", *tasks]
    command += ["--set", f"data.split.seed={seed}"]
    with tempfile.TemporaryDirectory() as home:
        variables = {**os.environ, "LORRY_HOME": home}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=variables)
    kept = ("task", "metric", "value", "interval", "published", "outcome", "train_seconds")
    return [{name: row.get(name) for name in kept} for row in json.loads(done.stdout)]


if __name__ == "__main__":
    main()
