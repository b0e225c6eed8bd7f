"""When should a training whose head was fitted first be given up for its beginning? Rules compared.

On each data set, with 50, 200 and 800 training rows and each seed, each method trains as it does by default
under a fitted head. Its beginning, which is the linear probe, and its end then predict the validation rows,
by which a rule has to choose, and other rows that nothing else looks at. All of these are rows of train: no
test part is read.

    python tests/benchmarks/bench_beginnings.py --data FOLDER [--sets mrpc,trec] [--methods lora,full]

With ``--head-rate`` the head learns at another rate than by default. ``FOLDER`` holds the data sets of
``bench_heads.py``. Results are appended to ``--results``, and what is there is not measured again. Ends in
two tables: what each rule comes to on the other rows on average, how often what it keeps is below the
beginning by more than the interval, and by how much at most; and what each rule would come to with 5, 20 and
100 validation rows, drawn with the shares of rows that the other rows show to be gained and lost.
"""

import argparse
import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_heads import DATA_SETS, Variant, define, read_rows, write_parts
from bench_small_data import HEADS, METHODS, RECIPES, SIZES
from numpy.typing import NDArray
from scipy.stats import binom

from lorry_components.process_setup import quiet_libraries
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.prepare_data.step import load_card, load_part, prepare_data
from lorry_components.tasks.resolution import ResolvedTask, resolve_task
from lorry_components.training.checkpoints.checkpoint_files import find_checkpoint, load_trained
from lorry_components.training.distributed.process_group import ALONE
from lorry_components.training.probe.feature_cache import FeatureCache
from lorry_components.training.probe.linear_probe import fit_linear_probe, open_features, predict_outputs
from lorry_components.training.setup.model_setup import set_up

SETS = ("mrpc", "rte", "cola", "sst2_glue", "snli", "trec", "ag_news", "clinc150_small")
_RECIPE = "100 of 8"


@dataclasses.dataclass(frozen=True, slots=True)
class Compared:
    """The beginning of a training and its end, on the same rows.

    Attributes:
        rows: How many.
        begun: The accuracy of the beginning; ``ended``: of the end.
        gained: Rows that only the end has right; ``lost``: only the beginning.
        begun_loss: The mean cross-entropy of the beginning; ``ended_loss``: of the end.
        loss_error: The standard error of their difference.
    """

    rows: int
    begun: float
    ended: float
    gained: int
    lost: int
    begun_loss: float
    ended_loss: float
    loss_error: float

    @property
    def gain(self) -> float:
        """What the end has over the beginning."""
        return self.ended - self.begun

    @property
    def error(self) -> float:
        """The standard error of that."""
        return math.sqrt(self.gained + self.lost) / self.rows


def _test_signs(gained: Any, lost: Any) -> Any:
    """Return the chance of so few gained rows among those that differ, if the two are equally good."""
    return binom.cdf(gained, gained + lost, 0.5)


# The same for a few rows alone: gained and lost ones, and how many there are.
FEW_ROWS_RULES: Mapping[str, Callable[[Any, Any, int], Any]] = {
    "always the end": lambda gained, lost, _rows: gained + lost >= 0,
    "not lower: ordinary methods until 2026-12-03": lambda gained, lost, _rows: gained >= lost,
    "higher by a standard error: soft tokens until then": lambda gained, lost, rows: (
        gained - lost > np.sqrt(np.maximum(gained + lost - (gained - lost) ** 2 / rows, 0))
    ),
    "not lower by a sign test at 0.3: the rule": lambda gained, lost, _rows: _test_signs(gained, lost) > 0.3,
    "not lower by a sign test at 0.05": lambda gained, lost, _rows: _test_signs(gained, lost) > 0.05,
}
FEW_ROWS = (5, 20, 100)
# An end that is better by more than this should not be given up.
_GOOD = 0.02

# Whether the end is kept.
RULES: Mapping[str, Callable[[Compared], bool]] = {
    "always the end": lambda _seen: True,
    "always the beginning": lambda _seen: False,
    "accuracy is not lower": lambda seen: seen.gain >= 0,
    "accuracy is higher": lambda seen: seen.gain > 0,
    "accuracy is higher by a standard error": lambda seen: seen.gain > seen.error,
    "accuracy is higher by two": lambda seen: seen.gain > 2 * seen.error,
    "loss is lower": lambda seen: seen.ended_loss < seen.begun_loss,
    "accuracy is not lower by a sign test at 0.3": lambda seen: _test_signs(seen.gained, seen.lost) > 0.3,
    "accuracy is higher and loss is lower": lambda seen: seen.gain > 0 and seen.ended_loss < seen.begun_loss,
    "accuracy is higher, by a standard error if loss is not lower": lambda seen: (
        seen.gain > (0 if seen.ended_loss < seen.begun_loss else seen.error)
    ),
    "accuracy is higher by a standard error, or loss is lower by one": lambda seen: (
        seen.gain > seen.error or seen.ended_loss < seen.begun_loss - seen.loss_error
    ),
}


def compare_outputs(begun: Any, ended: Any, truth: Sequence[int]) -> Compared:
    """Compare the outputs of a beginning and an end, each of shape (rows, classes)."""
    right, losses = [], []
    numbers = np.asarray(truth)
    for outputs in (begun, ended):
        right.append(outputs.argmax(axis=1) == numbers)
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        chosen = shifted[np.arange(len(numbers)), numbers]
        losses.append(np.log(np.exp(shifted).sum(axis=1)) - chosen)
    difference = losses[1] - losses[0]
    return Compared(
        rows=len(numbers),
        begun=float(right[0].mean()),
        ended=float(right[1].mean()),
        gained=int((right[1] & ~right[0]).sum()),
        lost=int((right[0] & ~right[1]).sum()),
        begun_loss=float(losses[0].mean()),
        ended_loss=float(losses[1].mean()),
        loss_error=float(difference.std() / math.sqrt(len(numbers))),
    )


def measure(task: ResolvedTask, work: Path, cache: FeatureCache) -> dict[str, dict[str, Any]]:
    """Train, and compare the beginning with the end on validation and on other rows."""
    data, checkpoints = work / "prepared", work / "checkpoints"
    prepare_data(task, data)
    finetune(
        task,
        data,
        work / "candidate",
        checkpoints=checkpoints,
        features=cache,
        compares_probe=False,
    )
    labels = load_card(data).labels
    task_type: Any = task.task_type.settle(task.base.folder)
    setup = set_up(task.spec, task.base, task_type, task.build_method(), labels=labels, group=ALONE)
    setup.model.train(mode=False)
    last = find_checkpoint(checkpoints)
    assert last is not None
    load_trained(setup.model, setup.method, last)
    parts = {part: load_part(data, part) for part in ("train", "validation", "test")}
    features = open_features(task.base, task_type, setup.method, cache, precision=setup.precision.name)
    assert features is not None
    probe = fit_linear_probe(features, parts, labels)
    outputs: dict[str, tuple[Any, Any]] = {}
    for part in ("validation", "test"):
        rows = [example.row for example in parts[part]]
        begun = predict_outputs(features.compute(rows), (probe.head.weight, probe.head.bias))
        ended = task_type.compute_outputs(setup.model, setup.reader, rows, labels, lambda _done: None)
        outputs[part] = begun, ended
    compared = {}
    for part, (begun, ended) in outputs.items():
        truth = [int(task_type.encode_label(example.label, labels)) for example in parts[part]]
        compared["validation" if part == "validation" else "others"] = compare_outputs(begun, ended, truth)
    return {part: dataclasses.asdict(found) for part, found in compared.items()}


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the results of all trainings, those that are known with them."""
    known = read_rows(options.results) if options.results.exists() else []
    done = {(each["data"], each["rows"], each["seed"], each["method"]): each for each in known}
    for seed in options.seeds:
        for name in options.sets:
            for rows in options.sizes:
                for method in options.methods:
                    key = (name, rows, seed, method)
                    if key not in done:
                        done[key] = dict(
                            zip(("data", "rows", "seed", "method"), key, strict=True)
                        ) | measure_one(name, rows, seed, method, options)
                        with options.results.open("a", encoding="utf-8") as stream:
                            stream.write(json.dumps(done[key]) + "\n")
                    yield done[key]


def measure_one(
    name: str, rows: int, seed: int, method: str, options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Measure a training on rows of train alone."""
    data_set = dataclasses.replace(DATA_SETS[name], test="", validation="")
    length = RECIPES[_RECIPE].describe(rows)
    head = {**HEADS["mean/probe"]["head"], "learning_rate": options.head_rate}
    variant = Variant(method, {"method": METHODS[method], "train": length, "head": head})
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        write_parts(data_set, options.data / name, work / "rows", rows=rows, seed=seed)
        parts = argparse.Namespace(test_rows=1000, epochs=3.0)
        spec = define(name, data_set, seed, variant, work / "rows", work, parts)
        return measure(resolve_task(spec), work, FeatureCache(options.cache))


def print_rules(results: Sequence[Mapping[str, Any]]) -> None:
    """Print what each rule comes to, in Markdown."""
    pairs = [(Compared(**each["validation"]), Compared(**each["others"])) for each in results]
    print("\n| the end is kept if on validation its | mean | kept | below the beginning | at most |")
    print("|---|---|---|---|---|")
    for name, keeps in RULES.items():
        kept = [(other, keeps(seen)) for seen, other in pairs]
        mean = sum(other.ended if ends else other.begun for other, ends in kept) / len(kept)
        below = [-other.gain for other, ends in kept if ends and other.gain < -1.96 * other.error]
        print(
            f"| {name} | {mean:.4f} | {sum(ends for _, ends in kept)} of {len(kept)} | {len(below)} | "
            f"{max(below, default=0.0):.3f} |"
        )


def print_few_rows(results: Sequence[Mapping[str, Any]], *, draws: int = 4000) -> None:
    """Print what each rule comes to with few validation rows, in Markdown."""
    generator = np.random.default_rng(0)
    others = [Compared(**each["others"]) for each in results]
    gains = np.asarray([each.gain for each in others])
    print("\n| validation rows | the end is kept if its accuracy is | over the probe | good ends given up |")
    print("|---|---|---|---|")
    for rows in FEW_ROWS:
        drawn: list[NDArray[np.int64]] = []
        for each in others:
            shares = [each.gained / each.rows, each.lost / each.rows]
            drawn.append(generator.multinomial(rows, [*shares, 1 - sum(shares)], draws).T)
        for name, keeps in FEW_ROWS_RULES.items():
            kept = np.asarray([keeps(gained, lost, rows).mean() for gained, lost, _same in drawn])
            lost_ends = 1 - kept[gains > _GOOD].mean()
            print(f"| {rows} | {name} | {np.mean(kept * gains):+.4f} | {lost_ends:.3f} |")


def main() -> None:
    """Measure what the command line asks for, and print it as it comes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("beginnings.jsonl"))
    parser.add_argument("--sets", type=lambda text: text.split(","), default=list(SETS))
    parser.add_argument("--methods", type=lambda text: text.split(","), default=["lora", "full"])
    parser.add_argument("--head-rate", type=float, help="of the head, in place of the default")
    parser.add_argument("--sizes", type=lambda text: [int(part) for part in text.split(",")], default=SIZES)
    parser.add_argument(
        "--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1, 2]
    )
    parser.add_argument("--cache", type=Path, default=Path(".lorry/cache/features"))
    options = parser.parse_args()
    quiet_libraries()
    results = []
    for result in run(options):
        results.append(result)
        seen, other = result["validation"], result["others"]
        print(
            f"{result['data']} {result['rows']} {result['method']} seed {result['seed']}: validation "
            f"{seen['begun']:.3f} to {seen['ended']:.3f}, loss {seen['begun_loss']:.3f} to "
            f"{seen['ended_loss']:.3f}; others {other['begun']:.3f} to {other['ended']:.3f}",
            flush=True,
        )
    print_rules(results)
    print_few_rows(results)


if __name__ == "__main__":
    main()
