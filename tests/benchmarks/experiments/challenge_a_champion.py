"""How often luck promotes when many equal adapters challenge one champion, and what it costs to prevent that.

Each case draws a champion and challengers whose errors share what is hard about a row. All are tested as the
gate tests them, and the confidence that is needed is the gate's own.

    python tests/benchmarks/experiments/challenge_a_champion.py
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lorry_components.metrics.base import MeanScorer
from lorry_components.metrics.differences import estimate_difference
from lorry_components.metrics.numbers import NumbersScorer, compute_pearson, compute_pearson_lines
from lorry_registry.ledger.alpha_spending import tighten_confidence

CHALLENGERS = 10
CONFIDENCE = 0.95
BASE_ACCURACY = 0.8

Numbers = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, float], list[float]]


def draw_accuracies(generator: np.random.Generator, rows: int, gain: float) -> list[float]:
    """Return the confidence of each of ten challengers, whose true accuracy is higher by a gain."""
    from scipy.stats import norm

    hard = generator.normal(size=rows)

    def answer(accuracy: float) -> NDArray[np.bool_]:
        level = float(norm.ppf(accuracy)) * np.sqrt(2.0)
        right: NDArray[np.bool_] = level + hard + generator.normal(size=rows) > 0
        return right

    champion = answer(BASE_ACCURACY)
    confidences = []
    for _ in range(CHALLENGERS):
        scorers = [MeanScorer(right) for right in (answer(BASE_ACCURACY + gain), champion)]
        confidences.append(estimate_difference(*scorers, rows).find_confidence())
    return confidences


def draw_useless(generator: np.random.Generator, rows: int, gain: float) -> list[float]:
    """Return the confidence of each of ten adapters against the majority class, on random labels."""
    majority = generator.random(rows) < 0.5
    confidences = []
    for _ in range(CHALLENGERS):
        scorers = [MeanScorer(right) for right in (generator.random(rows) < 0.5 + gain, majority)]
        confidences.append(estimate_difference(*scorers, rows).find_confidence())
    return confidences


def draw_correlations(generator: np.random.Generator, rows: int, gain: float) -> list[float]:
    """Return the confidence of each of ten challengers, whose noise is less by a share."""
    truth, hard = generator.normal(size=rows), generator.normal(size=rows)

    def answer(noise: float) -> Numbers:
        guess: Numbers = truth + noise * (hard + generator.normal(size=rows))
        return guess

    def score(guess: Numbers) -> NumbersScorer:
        return NumbersScorer(truth, guess, compute_pearson, compute_pearson_lines)

    champion = score(answer(0.5))
    challengers = [score(answer(0.5 * (1.0 - gain))) for _ in range(CHALLENGERS)]
    return [estimate_difference(each, champion, rows).find_confidence() for each in challengers]


def simulate(draw: Draw, rows: int, gain: float, cases: int) -> tuple[Numbers, Numbers]:
    """Return, by challenger, the share of cases in which it or one before it passes, and in which it does.

    Both without and with the tightened confidence, shape (2, challengers).
    """
    generator = np.random.default_rng(rows)
    confidences = np.asarray([draw(generator, rows, gain) for _ in range(cases)])
    needed = np.asarray([tighten_confidence(CONFIDENCE, earlier) for earlier in range(CHALLENGERS)])
    passes = np.stack([confidences >= CONFIDENCE, confidences >= needed])
    any_passes: Numbers = np.logical_or.accumulate(passes, axis=2).mean(axis=1)
    alone: Numbers = passes.mean(axis=1)
    return any_passes, alone


def print_rates(name: str, draw: Draw, sizes: tuple[int, ...], cases: int) -> None:
    """Print how often luck promotes one of 1, 5 or 10 equal challengers."""
    print(f"\n{name}: one or more of equal challengers promoted, {cases:,} cases")
    print("| rows | 1 at 95 % | 5 | 10 | 1 tightened | 5 | 10 |\n|---|---|---|---|---|---|---|")
    for rows in sizes:
        (plain, tight), _ = simulate(draw, rows, 0.0, cases)
        cells = [f"{rates[number - 1]:.1%}" for rates in (plain, tight) for number in (1, 5, 10)]
        print(f"| {rows:,} | {' | '.join(cells)} |", flush=True)


def print_power(name: str, draw: Draw, rows: int, gains: tuple[float, ...], cases: int) -> None:
    """Print how often a challenger that is better passes, by its place."""
    print(f"\n{name}: a better challenger promoted, {rows:,} rows, {cases:,} cases")
    print("| gain | at 95 % | as 1st | 2nd | 5th | 10th |\n|---|---|---|---|---|---|")
    for gain in gains:
        _, (plain, tight) = simulate(draw, rows, gain, cases)
        cells = [f"{plain[0]:.0%}", *(f"{tight[place - 1]:.0%}" for place in (1, 2, 5, 10))]
        print(f"| {gain:+.1%} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=4000, help="of accuracy; a tenth of them of Pearson's r")
    cases = parser.parse_args().cases
    print_rates("accuracy", draw_accuracies, (30, 100, 300, 1000), cases)
    print_rates("pearson", draw_correlations, (30, 100), cases // 10)
    print_rates("accuracy of useless adapters, no champion", draw_useless, (30, 100, 300, 1000), cases)
    print_power("accuracy", draw_accuracies, 1000, (0.01, 0.02, 0.03, 0.05), cases // 4)
    print_power("accuracy", draw_accuracies, 300, (0.03, 0.05, 0.08), cases // 4)


if __name__ == "__main__":
    main()
