"""The plot of an evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorry_components.plot_style import (
    BASELINE,
    CHAMPION,
    OWN,
    PROBE,
    PUBLISHED,
    open_figure,
    style_axes,
    write_figure,
)
from lorry_components.steps.evaluate.evaluation_report import ChampionComparison
from lorry_components.task_types import Prediction, Target, TaskType
from lorry_registry.manifest import Evaluation
from lorry_registry.tasks.task_spec import Reference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 5.4, 5.0
_LINE_INCHES, _STRIP_INCHES = 0.24, 0.55


@dataclass(frozen=True, slots=True)
class Standard:
    """A value of the primary metric, in a line of its own.

    Attributes:
        name: Whose it is.
        value: The value.
        colour: Its colour.
        mark: Its mark.
        interval: Its 95 % interval; None: it has none.
    """

    name: str
    value: float
    colour: str
    mark: str
    interval: tuple[float, float] | None = None


def plot_evaluation(
    path: Path,
    *,
    title: str,
    task_type: TaskType,
    targets: Sequence[Target],
    predictions: Sequence[Prediction],
    evaluation: Evaluation,
    champion: ChampionComparison | None = None,
    reference: Reference | None = None,
) -> None:
    """Write a PNG: the task type's plot of the test rows, and below it all that the metric is compared with.

    Args:
        path: The file to write.
        title: The title.
        task_type: The task type.
        targets: What is right for each row.
        predictions: What was predicted for each.
        evaluation: The metrics, with those of the trivial baselines.
        champion: The comparison with the champion; None: there is none.
        reference: A published figure; None: the task names none.
    """
    standards = list_standards(evaluation, champion, reference)
    below = _STRIP_INCHES + _LINE_INCHES * len(standards)
    figure = open_figure(_WIDTH, _HEIGHT + below)
    axes, strip = figure.subplots(2, 1, height_ratios=[_HEIGHT, below])
    task_type.plot_predictions(axes, targets, predictions)
    headline = evaluation.headline
    axes.set_title(
        f"{title}\n{evaluation.name_metric(evaluation.primary)} {headline.value:.3f}  "
        f"[{headline.low:.3f}, {headline.high:.3f}]  n = {evaluation.examples}",
        fontsize=10,
    )
    style_axes(axes)
    draw_standards(strip, standards, evaluation.name_metric(evaluation.primary))
    write_figure(path, figure)


def list_standards(
    evaluation: Evaluation, champion: ChampionComparison | None, reference: Reference | None
) -> list[Standard]:
    """Return the candidate's value and all that it is compared with, from the top down."""
    headline = evaluation.headline
    found = [Standard("this version", headline.value, OWN, "o", (headline.low, headline.high))]
    if champion is not None and (value := _read_champion(champion)) is not None:
        found.append(Standard(_name_champion(champion, evaluation), value, CHAMPION, "s"))
    if evaluation.linear_probe is not None:
        found.append(Standard("linear probe", evaluation.linear_probe.value, PROBE, "^"))
    found += [Standard(each.name, each.value, BASELINE, "X") for each in evaluation.baselines]
    if reference is not None:
        found.append(Standard("published", reference.value, PUBLISHED, "D"))
    return found


def draw_standards(axes: "Axes", standards: Sequence[Standard], metric: str) -> None:
    """Draw a line for each value, with its name and its number."""
    for place, each in enumerate(standards):
        low, high = each.interval or (each.value, each.value)
        axes.errorbar(
            [each.value],
            [place],
            xerr=[[max(0.0, each.value - low)], [max(0.0, high - each.value)]],
            fmt=each.mark,
            color=each.colour,
            markersize=6,
            capsize=3,
            linewidth=1.4,
        )
    names = [f"{each.name}  {each.value:.3f}" for each in standards]
    axes.set_yticks(range(len(standards)), names, fontsize=8)
    axes.set_ylim(len(standards) - 0.5, -0.5)
    axes.margins(x=0.08)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(metric, fontsize=8)
    style_axes(axes, grid="x")
    axes.spines["left"].set_visible(False)


def _read_champion(champion: ChampionComparison) -> float | None:
    return champion.value if champion.value is not None else champion.recorded


def _name_champion(champion: ChampionComparison, evaluation: Evaluation) -> str:
    name = f"champion v{champion.version}"
    if champion.value is None:
        return f"{name}, as registered"
    if champion.examples is not None and champion.examples != evaluation.examples:
        return f"{name}, {champion.examples:,} rows"
    return name
