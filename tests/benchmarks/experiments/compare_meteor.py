"""METEOR 1.5 here and by its program, on the same rows.

    pip download --no-deps pycocoevalcap==1.2 && unzip pycocoevalcap-1.2-py3-none-any.whl -d FOLDER
    python tests/benchmarks/experiments/compare_meteor.py --program FOLDER [--data FOLDER]

Scores one person's sentence against the others' for 150 meanings of E2E's test part, and the two sentences
of 150 pairs of STS-B's. Needs Java. The program is run with all modules, and with those that are
implemented here.
"""

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lorry_components.metrics import score_meteor_1_5

_ROWS = 150
Row = tuple[list[str], str]


def main() -> None:
    """Print a table of the scores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=os.environ.get("LORRY_TEST_DATA"))
    chosen = parser.parse_args()
    if chosen.data is None:
        parser.error("give --data FOLDER, or set LORRY_TEST_DATA")
    chance = random.Random(0)  # noqa: S311
    sets = {
        name: chance.sample(read(chosen.data), _ROWS)
        for name, read in {"E2E": read_e2e, "STS-B": read_stsb}.items()
    }
    print("| rows | all modules | `exact stem` | here | rows that are equal |")
    print("|---|---|---|---|---|")
    for name, rows in sets.items():
        lines = tokenize(chosen.program, rows)
        whole, _ = run_program(chosen.program, lines)
        limited, single = run_program(chosen.program, lines, "-m", "exact stem", "-w", "1.0 0.6")
        scorer = score_meteor_1_5([tuple(found) for found, _ in rows], [{"text": text} for _, text in rows])
        here = scorer(np.arange(len(rows)))
        equal = sum(
            abs(scorer(np.asarray([number])) - value) < 1e-9 for number, value in enumerate(single)
        ) / len(rows)
        print(f"| {name} | {whole:.4f} | {limited:.4f} | {here:.4f} | {equal:.1%} |")


def read_e2e(data: Path) -> list[Row]:
    """Return for each meaning one sentence, and the others as references."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in _read_lines(data / "e2e_nlg" / "test.jsonl.gz"):
        found[row["mr"]].append(row["ref"])
    return [(texts[1:], texts[0]) for texts in found.values() if len(texts) > 2]


def read_stsb(data: Path) -> list[Row]:
    """Return pairs of sentences."""
    rows = _read_lines(data / "stsb" / "test.jsonl.gz")
    return [([row["sentence1"]], row["sentence2"]) for row in rows]


def tokenize(program: Path, rows: Sequence[Row]) -> list[str]:
    """Return a line for the program for each row, of words of the Penn Treebank."""
    sys.path.insert(0, str(program))
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer  # type: ignore[import-not-found]

    texts = {
        number: [{"caption": text} for text in (found, *references)]
        for number, (references, found) in enumerate(rows)
    }
    tokens = PTBTokenizer().tokenize(texts)
    return [" ||| ".join(["SCORE", *tokens[number][1:], tokens[number][0]]) for number in texts]


def run_program(program: Path, lines: Sequence[str], *options: str) -> tuple[float, list[float]]:
    """Return the program's score of all rows together, and of each."""
    jar = program / "pycocoevalcap" / "meteor" / "meteor-1.5.jar"
    command = ["java", "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("java has no pipes")
        counts = []
        for line in lines:
            print(line, file=process.stdin, flush=True)
            counts.append(process.stdout.readline().strip())
        print(" ||| ".join(["EVAL", *counts]), file=process.stdin, flush=True)
        single = [float(process.stdout.readline()) for _ in lines]
        return float(process.stdout.readline()), single


def _read_lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


if __name__ == "__main__":
    main()
