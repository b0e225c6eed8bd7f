"""How often 95 % intervals cover the truth, and how often luck passes the gate's test, on drawn rows.

    python tests/benchmarks/bench_intervals.py [--times 1000]

Each line is one kind of rows, of which the truth is known. Beside what Lorry prints stands the plain
bootstrap, the middle 95 % of resamples, and the ratio of the seconds that both take. Of pairs of equally good
adapters it counts how many have a difference whose interval does not cover 0, and how many pass the one-sided
test at 95 %: 5 % is what both promise.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lorry_components.metrics.base import MeanScorer, Scorer, score_draws
from lorry_components.metrics.bootstrap import draw_sets, estimate_metrics
from lorry_components.metrics.classification import (
    ClassScorer,
    SmoothedClassScorer,
    compute_f1,
    compute_macro_f1,
    compute_matthews,
)
from lorry_components.metrics.differences import estimate_difference
from lorry_components.metrics.numbers import (
    NumbersScorer,
    RankScorer,
    compute_pearson,
    compute_pearson_lines,
    compute_rmse,
    compute_rmse_lines,
)

SIZES = (20, 50, 200)
RESAMPLES = 1000
MANY = 1_000_000
Draw = Callable[[int, np.random.Generator], Scorer]
Pair = Callable[[int, np.random.Generator], tuple[Scorer, Scorer]]


@dataclass
class Tally:
    """What was counted of one way to make intervals."""

    covered: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    passed: list[bool] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, low: float, high: float, truth: float, *, confidence: float = 0.0) -> None:
        """Count one interval."""
        self.covered.append(low - 1e-9 <= truth <= high + 1e-9)
        self.widths.append(high - low)
        self.passed.append(confidence >= 0.95)


def draw_share(share: float) -> Draw:
    """Return what draws the accuracy of rows of which a share is right."""
    return lambda rows, generator: MeanScorer(generator.random(rows) < share)


def draw_overlaps(right: float) -> Draw:
    """Return what draws a mean of rows of which a share has 1 and the others something in between."""
    return lambda rows, generator: MeanScorer(
        np.where(generator.random(rows) < right, 1.0, generator.random(rows))
    )


def answer(
    truth: NDArray[np.intp], accuracy: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.intp]:
    """Return classes that are right with the accuracy of the true class."""
    other = (truth + generator.integers(1, len(accuracy), len(truth))) % len(accuracy)
    return np.where(generator.random(len(truth)) < accuracy[truth], truth, other)


def build_f1(truth: NDArray[np.intp], guess: NDArray[np.intp], classes: int) -> Scorer:
    """Return F1 of the second class."""
    return SmoothedClassScorer(truth, guess, classes, lambda *counts: compute_f1(*counts)[:, 1])


def build_macro(truth: NDArray[np.intp], guess: NDArray[np.intp], classes: int) -> Scorer:
    """Return the mean F1 over classes."""
    return ClassScorer(truth, guess, classes, compute_macro_f1)


def build_matthews(truth: NDArray[np.intp], guess: NDArray[np.intp], classes: int) -> Scorer:
    """Return the Matthews correlation."""
    return SmoothedClassScorer(truth, guess, classes, compute_matthews)


Build = Callable[[NDArray[np.intp], NDArray[np.intp], int], Scorer]


def draw_classes(build: Build, shares: list[float], accuracies: list[float]) -> Draw:
    """Return what draws a metric of classes, each with its share of rows and its accuracy."""

    def draw(rows: int, generator: np.random.Generator) -> Scorer:
        truth = generator.choice(len(shares), rows, p=shares)
        return build(truth, answer(truth, np.asarray(accuracies), generator), len(shares))

    return draw


def draw_class_pair(build: Build, shares: list[float], accuracies: list[float]) -> Pair:
    """Return what draws the metrics of two equally good adapters that agree on half of the rows."""

    def draw(rows: int, generator: np.random.Generator) -> tuple[Scorer, Scorer]:
        truth = generator.choice(len(shares), rows, p=shares)
        first, second = (answer(truth, np.asarray(accuracies), generator) for _ in range(2))
        second = np.where(generator.random(rows) < 0.5, first, second)
        return build(truth, first, len(shares)), build(truth, second, len(shares))

    return draw


def build_numbers(metric: str, truth: NDArray[np.float64], guess: NDArray[np.float64]) -> Scorer:
    """Return a metric of numbers."""
    if metric == "spearman":
        return RankScorer(truth, guess)
    if metric == "pearson":
        return NumbersScorer(truth, guess, compute_pearson, compute_pearson_lines)
    return NumbersScorer(truth, guess, compute_rmse, compute_rmse_lines)


def draw_numbers(metric: str, noise: float) -> Draw:
    """Return what draws a metric of normal numbers that are predicted with so much noise."""

    def draw(rows: int, generator: np.random.Generator) -> Scorer:
        truth = generator.normal(size=rows)
        return build_numbers(metric, truth, truth + noise * generator.normal(size=rows))

    return draw


def draw_number_pair(metric: str) -> Pair:
    """Return what draws a metric of two equally good predictions of numbers."""

    def draw(rows: int, generator: np.random.Generator) -> tuple[Scorer, Scorer]:
        truth, shared = generator.normal(size=(2, rows))
        own = truth + 0.5 * shared + 0.3 * generator.normal(size=(2, rows))
        return build_numbers(metric, truth, own[0]), build_numbers(metric, truth, own[1])

    return draw


def draw_flag_pair(changed: float) -> Pair:
    """Return what draws two accuracies of which a share of rows each way is right for one alone."""

    def draw(rows: int, generator: np.random.Generator) -> tuple[Scorer, Scorer]:
        drawn = generator.random(rows)
        return MeanScorer(drawn >= changed), MeanScorer((drawn < changed) | (drawn >= 2 * changed))

    return draw


EVEN, RARE = [0.5, 0.5], [0.85, 0.15]
METRICS: Mapping[str, Draw] = {
    **{f"accuracy {share}": draw_share(share) for share in (0.5, 0.8, 0.95, 0.98)},
    "word F1, 90 % are 1": draw_overlaps(0.9),
    "F1, rows .97 right": draw_classes(build_f1, EVEN, [0.97, 0.97]),
    "F1 of a rare class": draw_classes(build_f1, RARE, [0.95, 0.6]),
    "F1, rare, nearly right": draw_classes(build_f1, RARE, [0.99, 0.9]),
    "Matthews, .8 right": draw_classes(build_matthews, EVEN, [0.8, 0.8]),
    "Matthews, rare, nearly": draw_classes(build_matthews, RARE, [0.99, 0.9]),
    "macro F1, 4 classes, .9": draw_classes(build_macro, [0.25] * 4, [0.9] * 4),
    "macro F1, 4, .97": draw_classes(build_macro, [0.25] * 4, [0.97] * 4),
    "macro F1, 10, .8": draw_classes(build_macro, [0.1] * 10, [0.8] * 10),
    "Pearson .96": draw_numbers("pearson", 0.3),
    "Pearson .71": draw_numbers("pearson", 1.0),
    "Spearman": draw_numbers("spearman", 1.0),
    "RMSE": draw_numbers("rmse", 1.0),
}
PAIRS: Mapping[str, Pair] = {
    **{f"accuracy, 2 x {share} change": draw_flag_pair(share) for share in (0.02, 0.05, 0.1, 0.2)},
    "F1 of a rare class": draw_class_pair(build_f1, RARE, [0.95, 0.6]),
    "Matthews, rare": draw_class_pair(build_matthews, RARE, [0.95, 0.6]),
    "macro F1, 4 classes": draw_class_pair(build_macro, [0.25] * 4, [0.9] * 4),
    "Pearson": draw_number_pair("pearson"),
    "RMSE": draw_number_pair("rmse"),
}


def resample(score: Callable[[NDArray[np.intp]], NDArray[np.float64]], rows: int) -> NDArray[np.float64]:
    """Return values on drawn rows."""
    return np.concatenate([score(draws) for draws in draw_sets(rows, resamples=RESAMPLES)])


def measure_metric(draw: Draw, rows: int, truth: float, times: int) -> tuple[Tally, Tally]:
    """Return how the plain bootstrap and Lorry's intervals do on so many sets of rows."""
    generator, plain, own = np.random.default_rng(rows), Tally(), Tally()
    for _ in range(times):
        scorer = draw(rows, generator)
        started = time.process_time()
        low, high = np.percentile(
            resample(lambda draws, one=scorer: score_draws(one, draws), rows), (2.5, 97.5)
        )
        between = time.process_time()
        found = estimate_metrics({"metric": scorer}, rows, resamples=RESAMPLES)["metric"]
        own.seconds += time.process_time() - between
        plain.seconds += between - started
        plain.add(low, high, truth)
        own.add(found.low, found.high, truth)
    return plain, own


def measure_pair(draw: Pair, rows: int, times: int) -> tuple[Tally, Tally]:
    """Return how both do on pairs of equally good adapters."""
    generator, plain, own = np.random.default_rng(rows), Tally(), Tally()
    for _ in range(times):
        first, second = draw(rows, generator)
        started = time.process_time()
        gains = resample(
            lambda draws, one=first, two=second: score_draws(one, draws) - score_draws(two, draws), rows
        )
        low, high = np.percentile(gains, (2.5, 97.5))
        share = float(np.mean(gains > 0.0))
        between = time.process_time()
        found = estimate_difference(first, second, rows)
        own.seconds += time.process_time() - between
        plain.seconds += between - started
        plain.add(low, high, 0.0, confidence=share)
        own.add(found.low, found.high, 0.0, confidence=found.find_confidence())
    return plain, own


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=1000, help="sets of rows a line")
    times = parser.parse_args().times
    print("| metric | rows | truth | covered: plain | covered: Lorry | width: plain | width: Lorry | time |")
    print("|---|---|---|---|---|---|---|---|")
    for name, draw in METRICS.items():
        truth = draw(MANY, np.random.default_rng(0))(np.arange(MANY))
        for rows in SIZES:
            plain, own = measure_metric(draw, rows, truth, times)
            figures = [truth, *(np.mean(each.covered) for each in (plain, own))]
            figures += [np.mean(each.widths) for each in (plain, own)]
            print(
                f"| {name} | {rows} | {' | '.join(f'{figure:.3f}' for figure in figures)} "
                f"| {own.seconds / plain.seconds:.2f} |",
                flush=True,
            )
    print("\n| pairs | rows | outside: plain | outside: Lorry | passed: plain | passed: Lorry | time |")
    print("|---|---|---|---|---|---|---|")
    for name, pair in PAIRS.items():
        for rows in SIZES:
            plain, own = measure_pair(pair, rows, times)
            outside = (1.0 - np.mean(each.covered) for each in (plain, own))
            shares = [*outside, *(np.mean(each.passed) for each in (plain, own))]
            print(
                f"| {name} | {rows} | {' | '.join(f'{share:.3f}' for share in shares)} "
                f"| {own.seconds / plain.seconds:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
