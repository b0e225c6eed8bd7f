"""One look for all plots, and what an evaluation's and a study's picture hold."""

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lorry_components import plot_style
from lorry_components.metrics.base import MeanScorer
from lorry_components.steps.evaluate.evaluation_plot import draw_standards, list_standards
from lorry_components.steps.evaluate.evaluation_report import ChampionComparison
from lorry_components.studies.grids import Grid
from lorry_components.studies.study_plot import plot_study
from lorry_components.studies.study_summary import summarize_study
from lorry_components.task_types import TASK_TYPES
from lorry_components.task_types.input_form import InputForm
from lorry_registry.manifest import Baseline, Evaluation, MetricValue, ProbeComparison
from lorry_registry.tasks.task_spec import Reference

COMPONENTS = Path(plot_style.__file__).parent

# Machado, Oliveira and Fernandes 2009: what red, green and blue look like without one kind of cone.
_SIGHT = {
    "all cones": "1 0 0 0 1 0 0 0 1",
    "no red": "0.152286 1.052583 -0.204868 0.114503 0.786281 0.099216 -0.003882 -0.048116 1.051998",
    "no green": "0.367322 0.860646 -0.227968 0.280085 0.672501 0.047413 -0.011820 0.042940 0.968881",
    "no blue": "1.255528 -0.076749 -0.178779 -0.078411 0.930809 0.147602 0.004733 0.691367 0.303900",
}


def test_colours_are_named_in_one_place() -> None:
    written = re.compile(r"""\b(?:color|c|cmap)=["'][^"']*["']|#[0-9a-f]{6}""")
    # A page of HTML has its own style sheet.
    allowed = {COMPONENTS / "plot_style.py", COMPONENTS / "steps" / "report" / "step.py"}
    found = {
        path.relative_to(COMPONENTS).as_posix(): written.findall(path.read_text("utf-8"))
        for path in COMPONENTS.rglob("*.py")
        if path not in allowed
    }
    assert {name: colours for name, colours in found.items() if colours} == {}


@pytest.mark.parametrize("sight", _SIGHT)
def test_what_is_compared_is_told_apart_with_any_sight(sight: str) -> None:
    named = (plot_style.OWN, plot_style.CHAMPION, plot_style.PROBE, plot_style.BASELINE, plot_style.PUBLISHED)
    cones = np.asarray(_SIGHT[sight].split(), dtype=float).reshape(3, 3)
    seen = [cones @ np.asarray(to_rgb(colour)) for colour in named]
    distances = [float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2)]
    assert min(distances) > 0.25


def _evaluate(**changes: Any) -> Evaluation:
    values: dict[str, Any] = {
        "split": "test",
        "examples": 200,
        "primary": "accuracy",
        "metrics": {"accuracy": MetricValue(value=0.8, low=0.7, high=0.9)},
        "baselines": (Baseline(name="majority class", value=0.2, gain=0.6, confidence=1.0, examples=200),),
        "linear_probe": ProbeComparison(value=0.75, gain=0.05, low=0.0, high=0.1),
    }
    return Evaluation(**values | changes)


def _compare(**changes: Any) -> ChampionComparison:
    values: dict[str, Any] = {
        "version": 3,
        "adapter_id": "sha256:" + "0" * 64,
        "recorded": 0.78,
        "value": 0.77,
        "gain": 0.03,
        "examples": 200,
    }
    return ChampionComparison(**values | changes)


def test_an_evaluation_shows_all_that_it_is_compared_with() -> None:
    reference = Reference(value=0.9, source="Nobody 2000")
    found = list_standards(_evaluate(), _compare(), reference)
    assert [(each.name, each.value) for each in found] == [
        ("this version", 0.8),
        ("champion v3", 0.77),
        ("linear probe", 0.75),
        ("majority class", 0.2),
        ("published", 0.9),
    ]
    assert len({each.mark for each in found}) == len({each.colour for each in found}) == len(found)
    axes = Figure().add_subplot()
    draw_standards(axes, found, "accuracy")
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "this version  0.800",
        "champion v3  0.770",
        "linear probe  0.750",
        "majority class  0.200",
        "published  0.900",
    ]


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"examples": 180, "left_out": 20}, "champion v3, 180 rows", 0.77),
        ({"value": None, "problem": "gone"}, "champion v3, as registered", 0.78),
    ],
)
def test_a_champion_that_is_not_on_the_same_rows_says_so(
    changes: dict[str, Any], name: str, value: float
) -> None:
    _, champion, *_ = list_standards(_evaluate(), _compare(**changes), None)
    assert (champion.name, champion.value) == (name, value)


def test_a_champion_of_which_nothing_is_known_is_left_out() -> None:
    found = list_standards(_evaluate(linear_probe=None), _compare(value=None, recorded=None), None)
    assert [each.name for each in found] == ["this version", "majority class"]


def test_a_class_without_a_test_row_is_in_the_matrix() -> None:
    axes = Figure().add_subplot()
    scores = {"a": 0.5, "b": 0.4, "never": 0.1}
    predictions = [{"label": "a", "scores": scores}, {"label": "b", "scores": scores}]
    TASK_TYPES["text-classification"](InputForm(max_length=8)).plot_predictions(axes, ["a", "b"], predictions)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "never (no row)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "never"]


@pytest.mark.parametrize("grid", [None, Grid("r", (1, 2)), Grid("targets", ("q", "v"))])
def test_a_study_shows_baseline_champion_and_a_legend_for_each_mark(
    compare: Callable[..., Any],
    lay_out: Callable[..., Any],
    conclude: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    grid: Grid | None,
) -> None:
    variants = [
        replace(variant, facts={"grid": value})
        for variant, value in zip(compare("lora,bitfit"), grid.values if grid else (None, None), strict=True)
    ]
    outcomes = [conclude(trial, [True] * 70 + [False] * 30) for trial in lay_out(variants, (0, 1))]
    summary = replace(
        summarize_study(variants, outcomes), baselines={"majority class": MeanScorer([1.0] * 20 + [0.0] * 80)}
    )
    drawn: list[Figure] = []
    monkeypatch.setattr(
        "lorry_components.studies.study_plot.write_figure", lambda _, each: drawn.append(each)
    )
    plot_study(
        tmp_path / "plot.png",
        summary,
        title="tiny",
        chosen="lora",
        grid=grid,
        champion=("champion v3, as registered", 0.9),
    )
    legend = drawn[0].axes[0].get_legend()
    assert legend is not None
    told = [text.get_text() for text in legend.get_texts()]
    for mark in ("majority class 0.200", "champion v3, as registered 0.900", "a single seed"):
        assert mark in told
    assert any("recommended" in text for text in told)
    axis = drawn[0].axes[0]
    expected = ["lora", "bitfit"] if grid and not grid.is_numeric else ["1", "2"]
    if grid is not None:
        assert [label.get_text() for label in axis.get_xticklabels()] == expected
    assert (
        axis.get_xlabel()
        == {None: "trained parameters, without the head", "r": "r", "targets": ""}[
            grid.name if grid else None
        ]
    )
