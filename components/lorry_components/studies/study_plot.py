"""The plot of a comparison."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorry_components.plot_style import (
    BASELINE,
    CHAMPION,
    COLOURS,
    MARKS,
    OWN,
    SEED,
    open_figure,
    style_axes,
    write_figure,
)
from lorry_components.studies.grids import Grid
from lorry_components.studies.study_summary import StudyRow, StudySummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Points of untrained bases have no place on a logarithmic axis.
_LEAST_PARAMETERS = 1
_LONG_LABEL = 9
_WIDE_LABEL = 30
_LINE_INCHES = 0.2
_LEGEND_INCHES = 2.2


def plot_study(
    path: Path,
    summary: StudySummary,
    *,
    title: str,
    chosen: str | None,
    grid: Grid | None = None,
    champion: tuple[str, float] | None = None,
) -> None:
    """Write a PNG: each variant's metric with its interval; small grey points are single seeds.

    Without a grid, variants are placed by their trained parameters on a logarithmic axis; with one of
    numbers, by these; with one of names, side by side. Lines across show the trivial baselines, and the
    task's champion if there is one.

    Args:
        path: The file to write.
        summary: The study.
        title: The title.
        chosen: The label of the recommended variant, drawn in another colour.
        grid: What was varied beside the methods; None: nothing.
        champion: The name of the task's champion and its value; None: it has none in this metric.
    """
    rows = [row for row in summary.rows if row.estimate is not None]
    is_placed = grid is None or grid.is_numeric
    width = 8.0 if is_placed else max(5.4, 0.8 * len(rows) + 2) + _LEGEND_INCHES
    figure = open_figure(width, 4.6)
    axes = figure.add_subplot()
    _draw_standards(axes, summary, champion)
    if grid is not None and grid.is_numeric:
        _draw_by_value(axes, rows, chosen, grid)
    elif grid is None:
        _draw_by_parameters(axes, rows, chosen)
    else:
        _draw_side_by_side(axes, rows, chosen)
    _draw_legend(axes, [row.variant.label for row in rows])
    axes.set_ylabel(summary.title)
    axes.set_title(f"{title}\n{summary.examples:,} {summary.part} rows, 95 % intervals", fontsize=10)
    style_axes(axes, grid="y")
    write_figure(path, figure)


def _draw_by_parameters(axes: "Axes", rows: Sequence[StudyRow], chosen: str | None) -> None:
    places = [float(max(row.trained_parameters or 0, _LEAST_PARAMETERS)) for row in rows]
    _draw_placed(axes, rows, places, chosen)
    axes.set_xlabel("trained parameters, without the head")
    _mark_counts(axes, places)


def _draw_by_value(axes: "Axes", rows: Sequence[StudyRow], chosen: str | None, grid: Grid) -> None:
    from matplotlib.ticker import NullLocator

    _draw_placed(axes, rows, [float(row.variant.facts["grid"]) for row in rows], chosen)
    axes.set_xlabel(grid.name)
    axes.set_xticks([float(value) for value in grid.values], [f"{value:g}" for value in grid.values])
    axes.xaxis.set_minor_locator(NullLocator())


def _draw_placed(axes: "Axes", rows: Sequence[StudyRow], places: Sequence[float], chosen: str | None) -> None:
    axes.set_xscale("log")
    # Methods of similar size are close together: their names are beside the plot, the best on top.
    order = sorted(range(len(rows)), key=lambda index: _read_value(rows[index]), reverse=True)
    for index in order:
        label = rows[index].variant.label
        _draw_point(
            axes,
            places[index],
            rows[index],
            colour=COLOURS[index % len(COLOURS)],
            mark=MARKS[index % len(MARKS)],
            label=f"{label} (recommended)" if label == chosen else label,
        )
    axes.set_xlim(min(places) / 2, max(places) * 2)
    if any(len(row.values) > 1 for row in rows):
        _explain_seeds(axes)


def _draw_standards(axes: "Axes", summary: StudySummary, champion: tuple[str, float] | None) -> None:
    for name, value in summary.baseline_values.items():
        axes.axhline(value, color=BASELINE, linewidth=1, linestyle=":", label=f"{name} {value:.3f}", zorder=1)
    if champion is not None:
        name, value = champion
        axes.axhline(
            value, color=CHAMPION, linewidth=1, linestyle="--", label=f"{name} {value:.3f}", zorder=1
        )


def _explain_seeds(axes: "Axes") -> None:
    axes.plot([], [], "o", color=SEED, markersize=3, label="a single seed")


def _draw_legend(axes: "Axes", labels: Sequence[str]) -> None:
    """Put the names beside the plot, or below it if long ones would leave it little room."""
    if not axes.get_legend_handles_labels()[1]:
        return
    if max(map(len, labels)) <= _WIDE_LABEL:
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.set_figheight(figure.get_figheight() + _LINE_INCHES * len(labels))
    figure.legend(loc="outside lower left", frameon=False, fontsize=9)


def _draw_side_by_side(axes: "Axes", rows: Sequence[StudyRow], chosen: str | None) -> None:
    places = [float(number) for number in range(len(rows))]
    labels = [row.variant.label for row in rows]
    is_long = max(map(len, labels)) > _LONG_LABEL
    axes.set_xticks(places, labels, rotation=35 if is_long else 0, ha="right" if is_long else "center")
    axes.margins(x=0.08)
    for place, row in zip(places, rows, strict=True):
        is_chosen = row.variant.label == chosen
        _draw_point(axes, place, row, colour=CHAMPION if is_chosen else OWN, mark="s" if is_chosen else "o")
    if chosen is not None:
        axes.plot([], [], "s", color=CHAMPION, label="recommended")
    if any(len(row.values) > 1 for row in rows):
        _explain_seeds(axes)


def _draw_point(
    axes: "Axes", place: float, row: StudyRow, *, colour: str, mark: str = "o", label: str = ""
) -> None:
    assert row.estimate is not None
    value = _read_value(row)
    if len(row.values) > 1:
        axes.plot([place] * len(row.values), row.values, "o", color=SEED, markersize=3, zorder=2)
    axes.errorbar(
        [place],
        [value],
        yerr=[[max(0.0, value - row.estimate.low)], [max(0.0, row.estimate.high - value)]],
        fmt=mark,
        color=colour,
        label=label,
        markersize=6,
        capsize=3,
        linewidth=1.4,
        zorder=3,
    )


def _mark_counts(axes: "Axes", places: Sequence[float]) -> None:
    """Mark 1, 2 and 5 of each power of ten, as 20k or 5M: powers of ten alone are often a single mark."""
    from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator

    lowest, highest = min(places) / 2, max(places) * 2
    marks = [step * 10.0**power for power in range(13) for step in (1, 2, 5)]
    if highest > 1000 * lowest:
        marks = marks[::3]
    axes.xaxis.set_major_locator(FixedLocator([mark for mark in marks if lowest <= mark <= highest]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _read_value(row: StudyRow) -> float:
    assert row.estimate is not None
    return row.estimate.value
