"""The picture of a study."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorry_components.studies.summarizing import StudyRow, StudySummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINT = "#1f5fa8"
_CHOSEN = "#c2410c"
_SEED = "#9aa5b1"
# Points of untrained bases have no place on a logarithmic axis.
_LEAST_PARAMETERS = 1
_CLOSE = 0.06


def plot_study(
    path: Path, summary: StudySummary, *, title: str, chosen: str | None, by_parameters: bool
) -> None:
    """Write a PNG: the metric with its interval, one point a variant; small grey points are single seeds.

    Args:
        path: The file to write.
        summary: What to draw.
        title: What stands above it.
        chosen: The label of the recommended variant, drawn in another colour.
        by_parameters: Whether variants lie by their trained parameters, on a logarithmic axis; otherwise they
            stand side by side, as when all train equally many.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in summary.rows if row.estimate is not None]
    width = 7.2 if by_parameters else max(5.4, 0.8 * len(rows) + 2)
    figure = Figure(figsize=(width, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if by_parameters:
        places = [float(max(row.trained_parameters or 0, _LEAST_PARAMETERS)) for row in rows]
        axes.set_xscale("log")
        _mark_counts(axes, places)
        axes.set_xlabel("trained parameters, the head apart")
        axes.margins(x=0.12)
    else:
        places = [float(number) for number in range(len(rows))]
        labels = [row.variant.label for row in rows]
        is_long = max((len(label) for label in labels), default=0) > 9
        axes.set_xticks(places, labels, rotation=35 if is_long else 0, ha="right" if is_long else "center")
        axes.margins(x=0.08)
    _draw_points(axes, places, rows, chosen)
    if by_parameters:
        _write_labels(axes, places, rows, chosen)
    axes.set_ylabel(summary.metric)
    axes.set_title(f"{title}\n{summary.test_rows:,} test rows, 95 % intervals", fontsize=10)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _mark_counts(axes: "Axes", places: Sequence[float]) -> None:
    """Mark 1, 2 and 5 of each power of ten, as 20k or 5M: powers of ten alone are often a single mark."""
    from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator

    lowest, highest = min(places) / 3, max(places) * 3
    marks = [step * 10.0**power for power in range(13) for step in (1, 2, 5)]
    if highest > 1000 * lowest:
        marks = marks[::3]
    axes.xaxis.set_major_locator(FixedLocator([mark for mark in marks if lowest <= mark <= highest]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _draw_points(axes: "Axes", places: Sequence[float], rows: Sequence[StudyRow], chosen: str | None) -> None:
    for place, row in zip(places, rows, strict=True):
        assert row.estimate is not None
        value = row.estimate.value
        if len(row.values) > 1:
            axes.plot([place] * len(row.values), row.values, "o", color=_SEED, markersize=3, zorder=2)
        axes.errorbar(
            [place],
            [value],
            yerr=[[max(0.0, value - row.estimate.low)], [max(0.0, row.estimate.high - value)]],
            fmt="o",
            color=_CHOSEN if row.variant.label == chosen else _POINT,
            markersize=6,
            capsize=3,
            linewidth=1.4,
            zorder=3,
        )


def _write_labels(
    axes: "Axes", places: Sequence[float], rows: Sequence[StudyRow], chosen: str | None
) -> None:
    """Write each label beside its point, a step lower where the one before it would lie under it."""
    figure = axes.figure
    figure.canvas.draw()
    taken: list[tuple[float, float]] = []
    order = sorted(range(len(rows)), key=lambda index: places[index])
    for index in order:
        row = rows[index]
        assert row.estimate is not None
        x, y = axes.transAxes.inverted().transform(
            axes.transData.transform((places[index], row.estimate.value))
        )
        height = 0.0
        while any(abs(x - left) < 0.22 and abs(y + height - above) < _CLOSE for left, above in taken):
            height -= _CLOSE
        taken.append((x, y + height))
        on_left = x > 0.75
        axes.annotate(
            row.variant.label,
            (x, y + height),
            xycoords="axes fraction",
            xytext=(-7 if on_left else 7, 0),
            textcoords="offset points",
            ha="right" if on_left else "left",
            va="center",
            fontsize=9,
            color=_CHOSEN if row.variant.label == chosen else "black",
        )
