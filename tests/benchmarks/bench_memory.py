"""Peak memory of evaluation and prediction, with few rows and with many: it should not grow.

    python tests/benchmarks/bench_memory.py [--few 10000] [--many 200000]

On a tiny random base, so that what the rows take is not hidden behind a model. `lorry run` trains a champion,
and then a candidate for few test rows and one for many, whose evaluation predicts them all with both and
compares them; `lorry predict --file` predicts them twice more, as one text a line and as a table. The peak is
that of the resident memory of the process that does it, with the libraries that it shares with others.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml
from process_times import install_hook

_WANTED = 1.2
_TRAIN_ROWS = 400
_CLASSES = {"good": ["good", "great", "fine", "lovely"], "bad": ["bad", "awful", "poor", "dull"]}
_THINGS = ["film", "food", "service", "place", "book", "song", "room", "view"]
_MAKE_BASE = """
import string, sys
from pathlib import Path
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

folder = Path(sys.argv[1])
pieces = [*string.ascii_lowercase, *string.digits]
pieces += [f"##{piece}" for piece in pieces]
words = sys.argv[2:]
folder.mkdir()
vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *pieces]
(folder / "vocab.txt").write_text("\\n".join(dict.fromkeys(vocabulary)) + "\\n")
tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
torch.manual_seed(0)
config = BertConfig(
    vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=64, max_position_embeddings=64,
)
BertModel(config).save_pretrained(folder)
tokenizer.save_pretrained(folder)
"""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=200_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, base = Path(scratch), Path(scratch) / "base"
        adjectives = [word for each in _CLASSES.values() for word in each]
        words = [*_THINGS, *adjectives, "the", "was", "very", "really"]
        subprocess.run([sys.executable, "-c", _MAKE_BASE, str(base), *words], check=True)
        # The champion that both are compared with.
        measure(folder, base, _TRAIN_ROWS)
        found = [measure(folder, base, rows) for rows in (chosen.few, chosen.many)]
    for name, few in found[0].items():
        many = found[1][name]
        print(
            f"{name:<16} {chosen.few:>8,} rows {few:7.0f} MiB   {chosen.many:>8,} rows {many:7.0f} MiB   "
            f"ratio {many / few:.2f} (wanted: at most {_WANTED})"
        )


def measure(folder: Path, base: Path, rows: int) -> dict[str, float]:
    """Return the peaks of evaluation and prediction with so many test rows, in MiB."""
    task, hooks = write_task(folder, base, rows), folder / f"peaks-{rows}"
    run(["run", str(task)], folder / "home", hooks / "run")
    home, table = folder / "home", folder / "rows" / "test.jsonl"
    run(["predict", "mood", "--file", str(folder / "texts.txt")], home, hooks / "predict")
    beside = ["--output", str(folder / "predicted.jsonl")]
    run(["predict", "mood", "--file", str(table), *beside], home, hooks / "table")
    return {
        "evaluate": read_peak(hooks / "run", "evaluate"),
        "predict lines": read_peak(hooks / "predict", "predict"),
        "predict a table": read_peak(hooks / "table", "predict"),
    }


def write_task(folder: Path, base: Path, rows: int) -> Path:
    """Write a task with test rows of its own, and their texts alone; return the task's file."""
    (folder / "rows").mkdir(exist_ok=True)
    draw = random.Random(0)  # noqa: S311
    for part, count in (("train", _TRAIN_ROWS), ("validation", 100), ("test", rows)):
        with (folder / "rows" / f"{part}.jsonl").open("w") as table:
            for number in range(count):
                text, label = write_row(draw, f"{part[:2]}{number}")
                table.write(json.dumps({"text": text, "label": label}) + "\n")
    with (folder / "texts.txt").open("w") as texts:
        texts.writelines(write_row(draw, str(number))[0] + "\n" for number in range(rows))
    document = {
        "name": "mood",
        "kind": "text-classification",
        "base": {"model": str(base)},
        "data": {"source": "rows", "columns": {"text": "text", "label": "label"}, "max_length": 32},
        "method": {"name": "lora", "r": 4, "targets": ["query", "value"]},
        "train": {"epochs": 10, "batch_size": 16, "learning_rate": 5e-3},
    }
    task = folder / "mood.yaml"
    task.write_text(yaml.safe_dump(document), "utf-8")
    return task


def write_row(draw: random.Random, mark: str) -> tuple[str, str]:
    """Return a text, which a mark tells from all others, and its class."""
    label = draw.choice(sorted(_CLASSES))
    words = f"{draw.choice(_THINGS)} was {draw.choice(['very', 'really'])} {draw.choice(_CLASSES[label])}"
    return f"the {words} {mark}", label


def run(arguments: list[str], home: Path, hook: Path) -> None:
    """Run `lorry`, and let each of its processes note its peak."""
    variables: Mapping[str, str] = {**os.environ, "LORRY_HOME": str(home), **install_hook(hook)}
    command = [str(Path(sys.executable).with_name("lorry")), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=dict(variables))
    if done.returncode:
        raise SystemExit(f"{command} failed\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def read_peak(hook: Path, word: str) -> float:
    """Return the peak of the process in whose command a word stands, in MiB."""
    noted = [json.loads(path.read_text()) for path in hook.glob("*.json")]
    return max(float(one["peak_mib"]) for one in noted if word in one["command"])


if __name__ == "__main__":
    main()
