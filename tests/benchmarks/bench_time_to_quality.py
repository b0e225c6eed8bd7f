"""How soon each recipe is as good as a plain one: seconds of training against validation metric.

The four tasks of the demo, on rows drawn by a seed: the linear probe, a plain recipe (LoRA r=8 on query and
value, three epochs, the head that a task has which leaves it open), and others that may be as good sooner:
fewer epochs or a number of steps, heads that read or begin differently, adapters in the upper layers only
(``top``), so that the outputs of those below are kept from the first epoch on, adapters beside other matrices
(``on``), other options of LoRA by their names, smaller batches (``batch``), another ``schedule`` or
``warmup``, and another learning rate (``at``), which falls to zero within each training, however long it is.

    python infra/demo/fetch_data.py FOLDER
    python tests/benchmarks/bench_time_to_quality.py --data FOLDER --results FILE [--seeds 0,1,2]
        [--sets tweets,films] [--recipes 'open 3,open 2 top 4 at 4e-3']

Ends in two tables, of the metric and of the seconds, and in the ratio to the plain recipe of the fastest
recipe that is no worse on validation rows, for each domain and for all together. Results are kept, and
what is there is not measured again.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from bench_heads import LORA, DataSet, Result, Variant, print_result, print_table, run

from lorry_components.process_setup import quiet_libraries

DATA_SETS: Mapping[str, DataSet] = {
    "tweets": DataSet("tweets.jsonl", "", label="rating", kind="regression"),
    "products": DataSet("products.jsonl", "", label="polarity"),
    "films": DataSet("films.jsonl", "", label="rating", kind="regression"),
    "editorials": DataSet("editorials.jsonl", "", label="rating", kind="regression"),
}
HEADS: Mapping[str, Mapping[str, Any]] = {
    "open": {},
    "first/random": {"pooling": "transformers"},
    "mean/random": {"pooling": "auto"},
    "mean/probe": {"pooling": "auto", "init": "probe"},
}
PLAIN = "open 3"
RECIPES = (
    PLAIN,
    "open 2",
    "open 2 at 4e-3",
    "open 3 top 4",
    "open 2 top 4 at 4e-3",
    "open 2 top 4 on query+key+value+dense",
    "open 1.5 top 4 on query+key+value+dense",
    "open 240steps top 4 on query+key+value+dense",
    # The demo's since it was measured here.
    "open 2 top 4 on query+key+value+dense r 4 alpha 16",
)


def describe_variant(name: str) -> Variant:
    """Return the sections of a recipe, named by its head, its length and what differs from the plain one."""
    head, length, *further = name.split(" ")
    options = dict(zip(further[::2], further[1::2], strict=True))
    method, train = dict(LORA), {"hidden_dropout": 0.0, **describe_length(length)}
    if layers := options.pop("top", None):
        method["layers"] = int(layers)
        train["cache_frozen_layers"] = True
    if targets := options.pop("on", None):
        method["targets"] = targets.split("+")
    if rate := options.pop("at", None):
        train["learning_rate"] = float(rate)
    if rows := options.pop("batch", None):
        train["batch_size"] = int(rows)
    own_head = dict(HEADS[head])
    if rate := options.pop("head", None):
        own_head["learning_rate"] = float(rate)
    train |= {name: yaml.safe_load(options.pop(name)) for name in ("schedule", "warmup") if name in options}
    method |= {option: yaml.safe_load(value) for option, value in options.items()}
    sections = {"method": method, "train": train, "head": own_head}
    return Variant(name, {section: values for section, values in sections.items() if values})


def describe_length(text: str) -> dict[str, Any]:
    """Return how long a recipe trains: ``3`` epochs, or ``240steps``, however many rows there are."""
    steps = text.removesuffix("steps")
    return {"epochs": float(text)} if steps == text else {"epochs": None, "steps": int(steps)}


def print_ratios(results: Sequence[Result], recipes: Sequence[str]) -> None:
    """Print how long the fastest recipe takes that is no worse than the plain one, as a share of its time."""
    for name in dict.fromkeys(each.data for each in results):
        _print_ratio(name, [each for each in results if each.data == name], recipes)
    _print_ratio("all", results, recipes)


def _print_ratio(name: str, results: Sequence[Result], recipes: Sequence[str]) -> None:
    quality = {recipe: _average(results, recipe, "validation") for recipe in recipes}
    seconds = {recipe: _average(results, recipe, "seconds") for recipe in recipes}
    as_good = [recipe for recipe in recipes if quality[recipe] >= quality[PLAIN]]
    fastest = min(as_good, key=lambda recipe: seconds[recipe])
    print(
        f"{name}: {PLAIN} has {quality[PLAIN]:.4f} after {seconds[PLAIN]:.0f} s; {fastest} has "
        f"{quality[fastest]:.4f} after {seconds[fastest]:.0f} s, "
        f"{seconds[fastest] / seconds[PLAIN]:.2f} times"
    )


def _average(results: Sequence[Result], recipe: str, field: str) -> float:
    return statistics.mean(getattr(each, field) for each in results if each.variant == recipe)


def main() -> None:
    """Measure what the command line asks for, and print it as it comes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--sets", type=lambda text: text.split(","), default=list(DATA_SETS))
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0])
    parser.add_argument("--cache", type=Path, default=Path(".lorry/cache/features"))
    parser.add_argument("--recipes", default=",".join(RECIPES), help="the plain one is measured in any case")
    given = parser.parse_args()
    quiet_libraries()
    options = argparse.Namespace(**vars(given), rows=100_000, test_rows=None, epochs=3.0)
    recipes = list(dict.fromkeys((PLAIN, *given.recipes.split(","))))
    variants = [Variant("probe", {"method": {"name": "probe"}}), *map(describe_variant, recipes)]
    results = []
    for result in run(options, variants, DATA_SETS):
        results.append(result)
        print_result(result)
    print_table(results)
    print_ratios(results, recipes)


if __name__ == "__main__":
    main()
