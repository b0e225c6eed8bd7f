"""How long a person waits before anything happens, against what importing the libraries takes.

    python tests/benchmarks/bench_startup.py [--repeats 3]

The floor is a Python that imports torch and one model of transformers. Measured against it, in one run:
`lorry validate` of one task, `lorry run` until the first step of its training and from its last promotion to
its end, `lorry run` with nothing to do, and `lorry predict` of one text. Of each the fastest of several
repeats; the training runs once.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TASK = REPOSITORY / "pipelines/tasks/sentiment_tweets.yaml"
LORRY = str(Path(sys.executable).with_name("lorry"))
FLOOR = "import torch; from transformers import BertModel"


def measure(command: Sequence[str], environment: dict[str, str], repeats: int) -> float:
    """Return the fewest seconds that a command takes to its end."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def measure_run(command: Sequence[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run a training; return the seconds until its first step, and those from its last outcome to the end."""
    home = Path(environment["LORRY_HOME"])
    started, first = time.perf_counter(), 0.0
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        for path in [] if first else home.glob("runs/*/progress/*.json"):
            with contextlib.suppress(OSError, ValueError):
                told = json.loads(path.read_text("utf-8"))
                if told["step"] == "finetune" and told["done"] > 0:
                    first = time.perf_counter() - started
        time.sleep(0.02)
    ended = time.time()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
    last = max(path.stat().st_mtime for path in home.glob("store/runs/*/tasks/*/register.json"))
    return first, ended - last


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "LORRY_HOME": home}
        run = [LORRY, "run", str(TASK), "--set", "train.epochs=0.1", "--set", "gate.minimum=0.1"]
        floor = measure([sys.executable, "-c", FLOOR], environment, repeats)
        validate = measure([LORRY, "validate", str(TASK)], environment, repeats)
        first, end = measure_run(run, environment)
        again = measure(run, environment, repeats)
        predict = measure([LORRY, "predict", "sentiment-tweets", "Well done!"], environment, repeats)
    print(f"floor: torch and one model of transformers  {floor:5.2f} s")
    for name, seconds, wanted in (
        ("validate", validate, "1.5 s"),
        ("first step of a training", first, f"{floor + 3:.2f} s"),
        ("from the last promotion to the end", end, "-"),
        ("run with nothing to do", again, "-"),
        ("predict of one text", predict, f"{floor + 1:.2f} s"),
    ):
        print(f"{name:<42} {seconds:5.2f} s  {seconds / floor:5.2f} floors  wanted: at most {wanted}")


if __name__ == "__main__":
    main()
