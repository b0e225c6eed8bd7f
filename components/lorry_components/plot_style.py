"""The look of all plots: colours that the colour-blind tell apart, a mark for each thing, no frame.

matplotlib is imported when a figure is opened: task files are checked without it.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from lorry_registry.files.atomic_write import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's (https://jfly.uni-koeln.de/color/), which the colour-blind tell apart. Each thing has a mark
# as well, for when colours repeat or are printed in grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")

# Of these five the nearest two are furthest apart, whichever kind of cone is missing.
OWN, CHAMPION, PROBE, BASELINE, PUBLISHED = "#0072b2", "#d55e00", "#56b4e9", "#000000", "#e69f00"
"""The candidate, the champion, the linear probe, the trivial baseline, and a published figure."""

SEED, GUIDE, GRID = "#9aa5b1", "#9aa5b1", "#e5e7eb"
"""Single seeds, lines that guide the eye, and the grid."""

SHADES, SCALE = "Blues", "cividis"
"""Colour maps: of shares from none to all, and of values; both are even in grey."""

DPI = 130


def open_figure(width: float, height: float) -> "Figure":
    """Return a figure of its own; not pyplot's global one: several steps may run in one process.

    Args:
        width: In inches.
        height: In inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: "Axes", *, grid: str = "") -> None:
    """Leave out the frame, and draw a faint grid behind all marks.

    Args:
        axes: The axes.
        grid: ``x`` or ``y``, where lines are drawn from; empty: no grid.
    """
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(axis="x" if grid == "x" else "y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)


def write_figure(path: Path, figure: "Figure") -> None:
    """Write a figure as PNG; the file appears whole."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=DPI)
    write_whole(path, image.getvalue())
