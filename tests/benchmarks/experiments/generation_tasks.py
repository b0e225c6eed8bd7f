"""Generation with a causal model on real data: E2E, WikiSQL, and LAMA P17 with and without P-tuning.

    python infra/demo/fetch_gemma.py ./gemma-3-270m
    python tests/benchmarks/experiments/generation_tasks.py --base ./gemma-3-270m --data FOLDER

FOLDER holds one folder for each data set, with JSON lines: ``e2e_nlg``, ``wikisql`` and ``lama_trex``
(default: the environment's LORRY_TEST_DATA). E2E: a thousand rows of train, and all references of 150
meanings of test. WikiSQL: the 1,000, 100 and 100 rows whose columns are known. P17: which country a place is
in, four wordings.

``lorry run`` trains and registers the first two; the third is ``lorry compare --grid
template=...``. Tasks that were trained already are not trained again. Ends in tables in Markdown.
"""

import argparse
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compare_methods_on_glue import DataSet, find_lorry, read_rows, shuffle_rows, write_document, write_rows

_E2E_ROWS, _E2E_VALIDATION, _E2E_MEANINGS = 1000, 100, 150
_FACTS = 300
WORDINGS = (
    "[P]*3 {text} [P]*3 is located in [P]*3 {label} .",
    "[P]*3 Question: In which country is {text}? [P]*3 Answer: [P]*3 {label} .",
    "[P]*3 {text} [P]*3 is located in the country of [P]*3 {label} .",
    "[P]*3 {text} [P]*3 , [P]*3 {label} .",
)


def main() -> None:
    """Write the tasks, run them, and print what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=os.environ.get("LORRY_TEST_DATA"))
    parser.add_argument("--tasks", default="e2e,wikisql,p17")
    parser.add_argument("--output", type=Path, default=Path(".lorry/experiments/causal"))
    chosen = parser.parse_args()
    if chosen.data is None:
        parser.error("give --data FOLDER, or set LORRY_TEST_DATA")
    run = {"e2e": _run_e2e, "wikisql": _run_wikisql, "p17": _study_p17}
    for name in chosen.tasks.split(","):
        run[name](chosen.base.resolve(), chosen.data, chosen.output / name)


def _run_e2e(base: Path, data: Path, folder: Path) -> None:
    source = data / "e2e_nlg"
    train = shuffle_rows(DataSet("e2e_nlg", {}, "bleu"), data)
    validation = list(read_rows(source, ("validation",)))
    test = list(read_rows(source, ("test",)))
    meanings = sorted({row["mr"] for row in test})
    drawn = np.random.default_rng(0).permutation(len(meanings))[:_E2E_MEANINGS]
    wanted = {meanings[index] for index in drawn}
    write_rows(
        folder,
        {
            "train": train[:_E2E_ROWS],
            "validation": validation[:_E2E_VALIDATION],
            "test": [row for row in test if row["mr"] in wanted],
        },
    )
    document = describe_task("e2e", base, folder, {"text": "mr", "label": "ref"})
    document["data"] |= {"template": "Describe: {text}\nSentence: {label}", "max_length": 160}
    document["evaluate"] = {"metrics": ["bleu", "nist", "meteor-1.5", "meteor", "rouge-l", "cider"]}
    _run(folder, document)


def _run_wikisql(base: Path, data: Path, folder: Path) -> None:
    parts = ("train", "validation", "test")
    write_rows(folder, {part: list(read_rows(data / "wikisql", (f"{part}_part",))) for part in parts})
    columns = {"text": "question", "text_pair": "columns", "label": "sql"}
    document = describe_task("wikisql", base, folder, columns)
    template = "Columns: {text_pair}\nQuestion: {text}\nSQL: {label}"
    document["data"] |= {"template": template, "max_length": 192}
    document["evaluate"] = {"metrics": ["sql_match", "exact_match"], "primary": "sql_match"}
    _run(folder, document)


def _study_p17(base: Path, data: Path, folder: Path) -> None:
    facts = {
        part: [row for row in read_rows(data / "lama_trex", (part,)) if row["relation"] == "P17"]
        for part in ("train", "test")
    }
    order = np.random.default_rng(0).permutation
    train = [facts["train"][index] for index in order(len(facts["train"]))]
    test = [facts["test"][index] for index in order(len(facts["test"]))]
    write_rows(
        folder,
        {"train": train[:_FACTS], "validation": train[_FACTS : _FACTS + 50], "test": test[:_FACTS]},
    )
    document = describe_task("p17", base, folder, {"text": "sub_label", "label": "obj_label"})
    document["kind"] = "knowledge-probing"
    document["data"] |= {"template": "{text} is located in {label} .", "max_length": 48}
    document["method"] = {"name": "p-tuning", "encoder": "lstm", "template": WORDINGS[0]}
    document["train"] = {"epochs": 4, "batch_size": 16, "learning_rate": 2e-3}
    (folder / "wordings.txt").write_text("\n".join(WORDINGS) + "\n", "utf-8")
    rows = _call(
        "compare",
        str(write_document(folder, document)),
        "--grid",
        f"template=@{folder / 'wordings.txt'}",
        "--part",
        "test",
        "--output",
        str(folder / "results"),
        "--json",
    )
    print("\n| wording | p@1 | 95 % interval | trained parameters |\n|---|---|---|---|")
    for row in rows:
        low, high = row["interval"]
        interval = f"{low:.3f} to {high:.3f}"
        print(f"| {row['label']} | {row['value']:.3f} | {interval} | {row['trained_parameters']:,} |")


def describe_task(name: str, base: Path, folder: Path, columns: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of a task file, to be completed."""
    return {
        "name": name,
        "kind": "text-generation",
        "base": {"model": str(base)},
        "data": {
            "source": str(folder.resolve()),
            "columns": dict(columns),
            "splits": {"train": "train", "validation": "validation", "test": "test"},
        },
        "method": {"name": "lora", "r": 8},
        "train": {"epochs": 3, "batch_size": 16, "learning_rate": 1e-3},
    }


def _run(folder: Path, document: Mapping[str, Any]) -> None:
    """Train and register a task, and print its metrics as a row each."""
    subprocess.run([find_lorry(), "run", str(write_document(folder, document))], check=True)
    manifest = _call("show", document["name"], "--json")["manifest"]
    evaluation = manifest["evaluation"]
    print(f"\n{document['name']}: {evaluation['examples']} examples, {manifest['parameters']}\n")
    print("| metric | value | 95 % interval |\n|---|---|---|")
    for name, metric in evaluation["metrics"].items():
        print(f"| {name} | {metric['value']:.3f} | {metric['low']:.3f} to {metric['high']:.3f} |")


def _call(*arguments: str) -> Any:
    finished = subprocess.run([find_lorry(), *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(finished.stdout)


if __name__ == "__main__":
    main()
