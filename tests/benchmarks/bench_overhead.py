"""Overhead of a run: the wall time of `lorry run` over the four demo tasks against their training times.

    python tests/benchmarks/bench_overhead.py

The training time of a task is that of its training loop, as its fine-tuning step measured it; the wall time
is that of the whole command in a new LORRY_HOME: checks, compilation, five processes a task, evaluation,
registration, MLflow. Two tasks run at a time, each on half of the processors, so that the training times of
one run add up to more than they would one after the other. The harder ratio is printed, too: against the sum
of the training times of four runs of one task each, with all processors.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


def run(home: str, *arguments: str) -> tuple[list[dict[str, Any]], float]:
    """Run the command; return what it printed as JSON, and its wall time in seconds."""
    command = [str(Path(sys.executable).with_name("lorry")), "run", "--json", *arguments]
    started = time.perf_counter()
    finished = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "LORRY_HOME": home}
    )
    return json.loads(finished.stdout), time.perf_counter() - started


def main() -> None:
    """Measure, and print."""
    tasks = sorted(str(path) for path in (REPOSITORY / "pipelines/tasks").glob("*.yaml"))
    with tempfile.TemporaryDirectory() as home:
        rows, wall = run(home, *tasks)
    for row in rows:
        print(f"{row['task']:<24} training {row['train_seconds']:6.1f} s   all steps {row['seconds']:6.1f} s")
    training = sum(row["train_seconds"] for row in rows)
    alone = 0.0
    for task in tasks:
        with tempfile.TemporaryDirectory() as home:
            single, _ = run(home, task)
        alone += single[0]["train_seconds"]
        print(f"{single[0]['task']:<24} training {single[0]['train_seconds']:6.1f} s with all processors")
    print(
        f"\nwall time of the run {wall:.1f} s, training times {training:.1f} s, one at a time {alone:.1f} s"
    )
    print(f"overhead ratio {wall / training:.2f} (wanted: at most 1.15)")
    print(f"overhead ratio against one training at a time {wall / alone:.2f}")


if __name__ == "__main__":
    main()
