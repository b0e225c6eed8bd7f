"""The plot of a study."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorry_components.studies.study_summary import StudyRow, StudySummary
from lorry_registry.whole_files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINT = "#1f5fa8"
_CHOSEN = "#c2410c"
_SEED = "#9aa5b1"
# Okabe and Ito's, which the colour-blind can distinguish; each has a mark, for when colours repeat.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")
# Points of untrained bases have no place on a logarithmic axis.
_LEAST_PARAMETERS = 1
_LONG_LABEL = 9
_WIDE_LABEL = 30
_LINE_INCHES = 0.2


def plot_study(
    path: Path, summary: StudySummary, *, title: str, chosen: str | None, by_parameters: bool
) -> None:
    """Write a PNG: each variant's metric with its interval; small grey points are single seeds.

    Args:
        path: The file to write.
        summary: The study.
        title: The title.
        chosen: The label of the recommended variant, drawn in another colour.
        by_parameters: Whether variants are placed by their trained parameters, on a logarithmic axis;
            otherwise they are side by side, as when all train equally many.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in summary.rows if row.estimate is not None]
    width = 8.0 if by_parameters else max(5.4, 0.8 * len(rows) + 2)
    figure = Figure(figsize=(width, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if by_parameters:
        _draw_by_parameters(axes, rows, chosen)
    else:
        _draw_side_by_side(axes, rows, chosen)
    axes.set_ylabel(summary.title)
    axes.set_title(f"{title}\n{summary.test_rows:,} test rows, 95 % intervals", fontsize=10)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=130)
    write_whole(path, image.getvalue())


def _draw_by_parameters(axes: "Axes", rows: Sequence[StudyRow], chosen: str | None) -> None:
    places = [float(max(row.trained_parameters or 0, _LEAST_PARAMETERS)) for row in rows]
    axes.set_xscale("log")
    axes.set_xlabel("trained parameters, without the head")
    # Methods of similar size are close together: their names are beside the plot, the best on top.
    order = sorted(range(len(rows)), key=lambda index: _read_value(rows[index]), reverse=True)
    for index in order:
        label = rows[index].variant.label
        _draw_point(
            axes,
            places[index],
            rows[index],
            colour=_COLOURS[index % len(_COLOURS)],
            mark=_MARKS[index % len(_MARKS)],
            label=f"{label} (recommended)" if label == chosen else label,
        )
    axes.set_xlim(min(places) / 2, max(places) * 2)
    _mark_counts(axes, places)
    _draw_legend(axes, [row.variant.label for row in rows])


def _draw_legend(axes: "Axes", labels: Sequence[str]) -> None:
    """Put the names beside the plot, or below it if long ones would leave it little room."""
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
        _draw_point(axes, place, row, colour=_CHOSEN if row.variant.label == chosen else _POINT)


def _draw_point(
    axes: "Axes", place: float, row: StudyRow, *, colour: str, mark: str = "o", label: str = ""
) -> None:
    assert row.estimate is not None
    value = _read_value(row)
    if len(row.values) > 1:
        axes.plot([place] * len(row.values), row.values, "o", color=_SEED, markersize=3, zorder=2)
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
