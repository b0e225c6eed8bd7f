"""What the seeds of a study cannot tell is not recommended, and what the command line set is in what is."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml

from lorry_components.metrics.base import MeanScorer
from lorry_components.studies.recommendation import explain_doubts, recommend_variant, write_section
from lorry_components.studies.study_summary import StudySummary, TrialOutcome, summarize_study
from lorry_components.studies.trials import Trial
from lorry_components.studies.variants import Variant

Compare = Callable[..., list[Variant]]
LayOut = Callable[..., list[Trial]]
Conclude = Callable[..., TrialOutcome]
ROWS = 200


def guess(share: float) -> list[bool]:
    return [number < share * ROWS for number in range(ROWS)]


@pytest.fixture
def summarize(compare: Compare, lay_out: LayOut, conclude: Conclude) -> Callable[..., StudySummary]:
    """Return a function from the shares that each method's seeds have right to a summary."""

    def build(**shares: tuple[float, ...]) -> StudySummary:
        variants = compare(",".join(shares))
        trials = lay_out(variants, tuple(range(len(next(iter(shares.values()))))))
        parameters = {"bitfit": 100, "lora": 400, "full": 20_000}
        outcomes = [
            conclude(trial, guess(shares[trial.variant.label][trial.seed]), parameters[trial.variant.label])
            for trial in trials
        ]
        return summarize_study(variants, outcomes)

    return build


def recommend(summary: StudySummary) -> Any:
    return recommend_variant(summary)


def test_seeds_far_apart_are_told_and_nothing_is_recommended(summarize: Callable[..., StudySummary]) -> None:
    summary = summarize(lora=(0.46, 0.94), bitfit=(0.6, 0.62))
    lora, bitfit = summary.rows
    assert lora.is_unsteady
    assert not bitfit.is_unsteady
    assert lora.doubt.endswith("2 seeds score 0.460 to 0.940")
    assert lora.describe()["doubt"] == lora.doubt
    assert recommend(summary) is None
    assert "it has the highest mean. Another training may turn the order round" in explain_doubts(summary)


def test_one_in_doubt_that_is_not_the_best_is_left_out(summarize: Callable[..., StudySummary]) -> None:
    # It trains fewest, and its mean is not far below.
    summary = summarize(lora=(0.74, 0.76), bitfit=(0.46, 0.94))
    assert explain_doubts(summary) == ""
    found = recommend(summary)
    assert found.label == "lora"
    assert "1 whose seeds say too little is left out" in found.reason


def test_seeds_that_differ_as_usual_are_no_doubt(summarize: Callable[..., StudySummary]) -> None:
    summary = summarize(lora=(0.83, 0.85, 0.87), bitfit=(0.7, 0.7, 0.7))
    assert [row.doubt for row in summary.rows] == ["", ""]
    assert recommend(summary).label == "lora"


def test_one_answer_for_all_rows_is_a_collapse(
    compare: Compare, lay_out: LayOut, conclude: Conclude, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = compare("lora,bitfit")
    outcomes = [conclude(trial, guess(0.8)) for trial in lay_out(variants, (0, 3))]
    monkeypatch.setattr("lorry_components.task_types.TextClassification.find_single_answer", lambda *_: "ham")
    summary = summarize_study(variants, outcomes)
    assert summary.rows[0].collapsed == {0: "ham", 3: "ham"}
    assert summary.rows[0].describe()["collapsed_seeds"] == [0, 3]
    told = "lora has collapsed: seed 0 answers every test row with 'ham' and seed 3 answers every"
    assert summary.rows[0].doubt.startswith(told)
    assert recommend(summary) is None


def answer(right: list[bool]) -> Any:
    """Return what scores a baseline by the rows that it has right."""
    return MeanScorer(np.asarray(right, dtype=np.float64))


def test_nothing_is_recommended_that_is_no_better_than_a_trivial_baseline(
    summarize: Callable[..., StudySummary],
) -> None:
    summary = summarize(lora=(0.61, 0.62), bitfit=(0.6, 0.61))
    # Other rows: what it has right says nothing of what the training has right.
    apart = replace(summary, baselines={"majority class": answer(guess(0.6)[::-1])})
    assert recommend(apart) is None
    assert explain_doubts(apart).startswith(
        "lora has the highest mean, 0.615, which is not significantly better than the trivial baseline "
        "(majority class: 0.600; difference +0.015, 95 % interval -0."
    )
    better = replace(summary, baselines={"majority class": answer(guess(0.4)), "another": answer(guess(0.3))})
    # Two rows of 200 do not tell the two apart, and the other trains fewer parameters.
    assert recommend(better).label == "bitfit"


def test_a_trivial_baseline_is_compared_on_the_same_rows(summarize: Callable[..., StudySummary]) -> None:
    """An interval of other rows covers the baseline; row by row nothing is lost and 12 are won."""
    summary = summarize(lora=(0.61,), bitfit=(0.6,))
    paired = replace(summary, baselines={"majority class": answer(guess(0.55))})
    (lora, _) = paired.rows
    assert lora.estimate is not None
    assert lora.estimate.low < 0.55
    assert explain_doubts(paired) == ""


def test_trivial_baselines_are_those_of_the_data(
    invoke: Any, task_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[StudySummary] = []

    def summarize_and_keep(*given: Any, **named: Any) -> StudySummary:
        kept.append(summarize_study(*given, **named))
        return kept[-1]

    monkeypatch.setattr("lorry_pipelines.studies.study_run.summarize_study", summarize_and_keep)
    assert invoke("compare", task_file(), "--no-probe", "--methods", "lora").exit_code == 0
    (trial,) = (invoke.home / "studies" / "cells").iterdir()
    measured = json.loads((trial / "result.json").read_text("utf-8"))["evaluation"]["baselines"]
    assert kept[0].baseline_values == {each["name"]: each["value"] for each in measured} != {}
    # One seed: the paired difference is the one that the evaluation found.
    assert kept[0].compare_baseline("lora", "majority class").value == pytest.approx(measured[0]["gain"])


def test_an_untrained_base_does_not_collapse(
    compare: Compare, lay_out: LayOut, conclude: Conclude, monkeypatch: pytest.MonkeyPatch
) -> None:
    (variant,) = compare("lora")
    untrained = replace(variant, is_trained=False)
    outcomes = [conclude(trial, guess(0.5)) for trial in lay_out([untrained])]
    monkeypatch.setattr("lorry_components.task_types.TextClassification.find_single_answer", lambda *_: "ham")
    (row,) = summarize_study([untrained], outcomes).rows
    assert row.collapsed == {}


@pytest.mark.parametrize(
    ("setting", "section", "field", "value"),
    [
        ("train.warmup=0.1", "train", "warmup", 0.1),
        ("train={warmup: 0.2}", "train", "warmup", 0.2),
        ("train.early_stopping.patience=2", "train", "early_stopping", {"patience": 2}),
        ("head.init=probe", "head", "init", "probe"),
    ],
)
def test_what_the_command_line_set_is_recommended_too(
    compare: Compare,
    lay_out: LayOut,
    conclude: Conclude,
    setting: str,
    section: str,
    field: str,
    value: Any,
) -> None:
    (variant,) = compare("lora", (setting,))
    (row,) = summarize_study([variant], [conclude(trial, guess(0.8)) for trial in lay_out([variant])]).rows
    written = yaml.safe_load(write_section(row))[section]
    assert written[field] == value or value.items() <= written[field].items()
    # What the file says stays in the file.
    assert "batch_size" not in written


def test_what_no_section_holds_is_said(compare: Compare, lay_out: LayOut, conclude: Conclude) -> None:
    variants = compare("lora", ("data.limit.train=50", "train.warmup=0.1"))
    found = recommend(summarize_study(variants, [conclude(t, guess(0.8)) for t in lay_out(variants)]))
    assert found.reason.endswith("; measured with data.limit.train as set on the command line")


def test_no_interval_stands_around_seeds_far_apart(
    invoke: Any, task_file: Any, summarize: Callable[..., StudySummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = summarize(lora=(0.46, 0.94), bitfit=(0.6, 0.62))
    monkeypatch.setattr("lorry_pipelines.studies.study_run.summarize_study", lambda *_, **__: summary)
    result = invoke("compare", task_file(), "--no-probe", "--methods", "lora,bitfit", "--seeds", "0,1")
    assert result.exit_code == 0, result.output
    assert "0.700 ±0.339   seeds differ" in result.output
    assert "Nothing is recommended" in result.output
    assert "Recommended\n" not in result.output
    assert "method: {name:" not in result.output
