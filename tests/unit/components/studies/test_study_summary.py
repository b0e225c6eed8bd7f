"""One row a variant, scored on the same drawn rows; what is recommended; the picture."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lorry_components.studies.grids import Grid
from lorry_components.studies.recommendation import Recommendation, recommend_variant, write_section
from lorry_components.studies.study_plot import plot_study
from lorry_components.studies.study_summary import (
    StudySummary,
    TrialOutcome,
    summarize_study,
)
from lorry_components.studies.trials import Trial
from lorry_components.studies.variants import Variant
from lorry_registry.errors import InvalidDataError

ROWS = 200
Compare = Callable[..., list[Variant]]
LayOut = Callable[..., list[Trial]]
Conclude = Callable[..., TrialOutcome]


def guess(share: float, *, shift: int = 0) -> list[bool]:
    """Return which of the rows are right: so large a share, from some row on."""
    right = [number < share * ROWS for number in range(ROWS)]
    return right[-shift:] + right[:-shift] if shift else right


def recommend(summary: StudySummary) -> Recommendation | None:
    return recommend_variant(replace(summary, baselines={}))


def test_rows_tell_means_intervals_and_spread(compare: Compare, lay_out: LayOut, conclude: Conclude) -> None:
    variants = compare("lora,bitfit", evaluate={"metrics": []})
    trials = lay_out(variants, (0, 1))
    shares = {"lora": (0.8, 0.9), "bitfit": (0.6, 0.6)}
    outcomes = [conclude(trial, guess(shares[trial.variant.label][trial.seed])) for trial in trials]
    summary = summarize_study(variants, outcomes)
    lora, bitfit = summary.rows
    assert summary.metric == "accuracy"
    assert summary.reference == "lora"
    assert (summary.part, summary.examples) == ("validation", ROWS)
    assert lora.values == (0.8, 0.9)
    assert lora.estimate is not None
    assert lora.estimate.value == pytest.approx(0.85)
    assert lora.estimate.low < 0.85 < lora.estimate.high
    assert lora.spread == pytest.approx(0.0707, abs=1e-4)
    assert lora.difference is None
    assert bitfit.spread == 0.0
    assert bitfit.difference is not None
    assert bitfit.difference.value == pytest.approx(-0.25)
    assert bitfit.difference.low < -0.25 < bitfit.difference.high < 0
    assert bitfit.difference.find_confidence() < 0.001
    assert set(bitfit.metrics) == {"accuracy", "f1", "matthews"}


def test_the_same_rows_cancel_what_is_hard_for_both(
    compare: Compare, lay_out: LayOut, conclude: Conclude
) -> None:
    variants = compare("lora,lora:r=2,bitfit")
    trials = lay_out(variants)
    # Equally good; the second is right on nearly the same rows, the third on others.
    right = [guess(0.7), guess(0.7, shift=2), guess(0.7, shift=60)]
    outcomes = [conclude(trial, flags) for trial, flags in zip(trials, right, strict=True)]
    _, near, far = summarize_study(variants, outcomes, against="lora").rows
    assert near.difference is not None
    assert far.difference is not None
    assert near.difference.high - near.difference.low < 0.5 * (far.difference.high - far.difference.low)


def test_the_reference_can_be_named(compare: Compare, lay_out: LayOut, conclude: Conclude) -> None:
    variants = compare("lora,bitfit")
    trials = lay_out(variants)
    outcomes = [conclude(trials[0], guess(0.9)), conclude(trials[1], guess(0.6))]
    summary = summarize_study(variants, outcomes, against="bitfit")
    assert summary.reference == "bitfit"
    assert summary.rows[0].difference is not None
    assert summary.rows[0].difference.value == pytest.approx(0.3)


def test_a_failed_seed_is_told_and_not_recommended(
    compare: Compare, lay_out: LayOut, conclude: Conclude
) -> None:
    variants = compare("lora,bitfit,full")
    trials = lay_out(variants, (0, 1))
    outcomes = [
        conclude(trial, (), error="the loss became nan")
        if trial.variant.label == "full" or trial.name == "bitfit, seed 1"
        else conclude(trial, guess(0.9 if trial.variant.label == "bitfit" else 0.7))
        for trial in trials
    ]
    summary = summarize_study(variants, outcomes)
    _, bitfit, full = summary.rows
    assert bitfit.seeds == (0,)
    assert bitfit.errors == ("bitfit, seed 1: the loss became nan",)
    assert full.estimate is None
    assert full.trained_parameters is None
    assert full.describe()["value"] is None
    chosen = recommend(summary)
    assert chosen is not None
    assert chosen.label == "lora"


def test_nothing_done_is_told_too(compare: Compare, lay_out: LayOut, conclude: Conclude) -> None:
    variants = compare("lora")
    outcomes = [conclude(trial, (), error="no") for trial in lay_out(variants)]
    summary = summarize_study(variants, outcomes)
    assert summary.reference is None
    assert recommend(summary) is None


def test_other_rows_cannot_be_compared(compare: Compare, lay_out: LayOut, conclude: Conclude) -> None:
    variants = compare("lora,bitfit")
    trials = lay_out(variants)
    outcomes = [conclude(trials[0], guess(0.5)), conclude(trials[1], guess(0.5)[:100])]
    with pytest.raises(InvalidDataError, match="same rows"):
        summarize_study(variants, outcomes)


@pytest.mark.parametrize("worse", range(0, 40, 2))
def test_what_is_significantly_below_the_best_is_told_by_the_interval_that_is_shown(
    worse: int, compare: Compare, lay_out: LayOut, conclude: Conclude
) -> None:
    variants = compare("lora,bitfit")
    trials = lay_out(variants)
    # Rows on which they differ both ways, so that the difference is not clear at once.
    right = [guess(0.7), guess(0.7 - worse / ROWS, shift=10)]
    outcomes = [
        conclude(trial, flags, parameters)
        for trial, flags, parameters in zip(trials, right, (400, 100), strict=True)
    ]
    summary = summarize_study(variants, outcomes, against="lora")
    difference = summary.rows[1].difference
    found = recommend(summary)
    assert found is not None
    assert difference is not None
    is_below = difference.high < 0.0
    assert (found.label == "lora") == is_below
    assert ("significantly below" in found.reason) == (not is_below or "all that train fewer" in found.reason)


@pytest.mark.parametrize(
    ("shares", "chosen", "words"),
    [
        # A tenth below the best on 200 rows is sure; a hundredth is not.
        ((0.9, 0.89, 0.6), "lora r=2", "trains the fewest parameters (200)"),
        ((0.9, 0.7, 0.6), "lora", "has the best metric, 0.900, with 400 trained parameters, and all that"),
        ((0.6, 0.7, 0.9), "bitfit", "has the best metric, 0.900, with 100 trained parameters"),
    ],
)
def test_the_smallest_that_is_not_below_the_best_is_recommended(
    shares: Sequence[float],
    chosen: str,
    words: str,
    compare: Compare,
    lay_out: LayOut,
    conclude: Conclude,
) -> None:
    variants = compare("lora,lora:r=2,bitfit")
    trials = lay_out(variants)
    outcomes = [
        conclude(trial, guess(share, shift=place), parameters)
        for place, (trial, share, parameters) in enumerate(zip(trials, shares, (400, 200, 100), strict=True))
    ]
    found = recommend(summarize_study(variants, outcomes))
    assert found is not None
    assert found.label == chosen
    assert words in found.reason


def test_of_equally_small_ones_the_better_is_recommended(
    compare: Compare, lay_out: LayOut, conclude: Conclude
) -> None:
    variants = compare("lora:targets=[key],lora:targets=[value]")
    trials = lay_out(variants)
    outcomes = [conclude(trials[0], guess(0.8)), conclude(trials[1], guess(0.81))]
    found = recommend(summarize_study(variants, outcomes))
    assert found is not None
    assert found.label == "lora targets=value"


def test_all_train_fields_that_came_with_a_method_are_pasted(
    compare: Compare, lay_out: LayOut, conclude: Conclude
) -> None:
    variants = compare(
        "full:train.learning_rate=0.001;train.weight_decay=0.1;train.steps=null;train.epochs=2;"
        "train.early_stopping={patience: 3}"
    )
    outcomes = [conclude(trial, guess(0.8), rate=0.001) for trial in lay_out(variants)]
    (row,) = summarize_study(variants, outcomes).rows
    assert yaml.safe_load(write_section(row))["train"] == {
        "learning_rate": 0.001,
        "weight_decay": 0.1,
        "steps": None,
        "epochs": 2.0,
        "early_stopping": {"patience": 3},
    }


@pytest.mark.parametrize(
    ("methods", "shares", "parameters", "seeds", "told"),
    [
        (
            "lora",
            (0.8,),
            (100,),
            (0,),
            "lora is the only one to choose from: 0.800 with 100 trained parameters; with one seed, "
            "another training may say otherwise",
        ),
        (
            "lora,bitfit",
            (0.8, 0.6),
            (100, 200),
            (0, 1),
            "has the best metric, 0.800, with 100 trained parameters",
        ),
        (
            "lora,bitfit",
            (0.8, 0.8),
            (100, 100),
            (0, 1),
            "lora and bitfit have the best metric, 0.800; it is chosen with 100 trained parameters",
        ),
        (
            "lora,bitfit,full",
            (0.8, 0.8, 0.81),
            (100, 100, 900),
            (0, 1),
            "lora scores no less than bitfit, which train as many parameters (100), the fewest of those",
        ),
    ],
)
def test_the_reason_is_true(
    methods: str,
    shares: tuple[float, ...],
    parameters: tuple[int, ...],
    seeds: tuple[int, ...],
    told: str,
    compare: Compare,
    lay_out: LayOut,
    conclude: Conclude,
) -> None:
    variants = compare(methods)
    by_label = {
        variant.label: (guess(share), count)
        for variant, share, count in zip(variants, shares, parameters, strict=True)
    }
    outcomes = [conclude(trial, *by_label[trial.variant.label]) for trial in lay_out(variants, seeds)]
    found = recommend(summarize_study(variants, outcomes))
    assert found is not None
    assert told in found.reason
    assert ("one seed" in found.reason) == (len(seeds) == 1)


def test_what_failed_is_told_beside_the_reason(compare: Compare, lay_out: LayOut, conclude: Conclude) -> None:
    variants = compare("lora,bitfit,full")
    outcomes = [
        conclude(trial, guess(0.8), error="" if trial.variant.label == "lora" else "no")
        for trial in lay_out(variants)
    ]
    found = recommend(summarize_study(variants, outcomes))
    assert found is not None
    assert "2 that failed are left out" in found.reason


def test_what_is_recommended_can_be_pasted(
    compare: Compare, lay_out: LayOut, conclude: Conclude, task_file: Callable[..., Path]
) -> None:
    variants = compare("lora:r=2,bitfit")
    trials = lay_out(variants)
    outcomes = [conclude(trials[0], guess(0.8)), conclude(trials[1], guess(0.8), rate=0.003)]
    changed, other = summarize_study(variants, outcomes).rows
    assert yaml.safe_load(write_section(changed)) == {
        "method": {"name": "lora", "r": 2, "targets": ["query", "value"]},
        "train": {"learning_rate": 0.01},
    }
    # What it was trained with, and not the file's, which was chosen for lora.
    assert yaml.safe_load(write_section(other))["train"] == {"learning_rate": 0.003}
    pasted = yaml.safe_load(task_file().read_text()) | yaml.safe_load(write_section(changed))
    assert pasted["method"]["r"] == 2


@pytest.mark.parametrize(
    "methods", ["lora,bitfit,full", "lora:r=2;targets=[query,key];dropout=0.1,bitfit,full"]
)
@pytest.mark.parametrize("grid", [None, Grid("targets", ("q", "v"))])
def test_a_picture_is_drawn(
    grid: Grid | None,
    methods: str,
    compare: Compare,
    lay_out: LayOut,
    conclude: Conclude,
    tmp_path: Path,
) -> None:
    variants = compare(methods)
    trials = lay_out(variants, (0, 1))
    outcomes = [
        conclude(trial, (), error="no")
        if trial.variant.label == "full"
        else conclude(trial, guess(0.5 + trial.seed / 10))
        for trial in trials
    ]
    path = tmp_path / "plot.png"
    plot_study(
        path,
        summarize_study(variants, outcomes),
        title="tiny: compare",
        chosen="bitfit",
        grid=grid,
    )
    assert path.read_bytes().startswith(b"\x89PNG")


def test_long_names_stand_below_the_picture(
    compare: Compare, lay_out: LayOut, conclude: Conclude, tmp_path: Path
) -> None:
    shapes = []
    for number, methods in enumerate(("lora,full", "lora:r=2;targets=[query,key];dropout=0.1,full")):
        variants = compare(methods)
        outcomes = [conclude(trial, guess(0.5)) for trial in lay_out(variants, (0, 1))]
        path = tmp_path / f"{number}.png"
        plot_study(path, summarize_study(variants, outcomes), title="tiny", chosen=None)
        # Width and height, as a PNG's header has them.
        shapes.append(struct.unpack(">II", path.read_bytes()[16:24]))
    (width, height), (same_width, larger_height) = shapes
    assert same_width == width
    assert larger_height > height
