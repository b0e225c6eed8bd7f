"""The learning curve of a training as a picture in SVG: loss and validation score, each on its own scale."""

from collections.abc import Sequence
from html import escape

from lorry_components.steps.finetune.learning_curve import LearningCurve

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP, _FOOT = 300, 150, 60, 18, 30, 32
_Points = Sequence[tuple[int, float]]


def draw_curve(curve: LearningCurve) -> str:
    """Return a picture of the lines that have two points or more, side by side; "": none has."""
    lines = [
        (title, points)
        for title, points in (("training loss", curve.losses), (f"validation {curve.metric}", curve.scores))
        if len(points) > 1
    ]
    if not lines:
        return ""
    label = "; ".join(
        f"{title} from {points[0][1]:.3g} to {points[-1][1]:.3g}, step {points[-1][0]:,}"
        for title, points in lines
    )
    width = len(lines) * (_LEFT + _WIDTH) + (len(lines) - 1) * _GAP + 12
    parts = "".join(
        _draw_line(title, points, number * (_LEFT + _WIDTH + _GAP) + _LEFT)
        for number, (title, points) in enumerate(lines)
    )
    kind = "curve" if len(lines) > 1 else "curve single"
    return (
        f'<svg class="{kind}" role="img" aria-label="{escape(label, quote=True)}" '
        f'viewBox="0 0 {width} {_TOP + _HEIGHT + _FOOT}">{parts}</svg>'
    )


def _draw_line(title: str, points: _Points, left: int) -> str:
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    first, last = steps[0], steps[-1]
    across, is_level = (last - first) or 1, low == high
    bottom = _TOP + _HEIGHT
    places = [
        (
            left + (step - first) / across * _WIDTH,
            # A little room above and below, so that no line lies on the frame; a level one is in the middle.
            bottom - 6 - (0.5 if is_level else (value - low) / (high - low)) * (_HEIGHT - 12),
        )
        for step, value in points
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = (
        "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in places) if len(points) < 30 else ""
    )
    ends = [(_TOP + _HEIGHT / 2 + 4, low)] if is_level else [(bottom - 3, low), (_TOP + 10, high)]
    scale = "".join(
        f'<text x="{left - 6}" y="{y:g}" text-anchor="end">{value:.3g}</text>' for y, value in ends
    )
    return (
        f'<rect class="frame" x="{left}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}"/>'
        f'<polyline class="line" points="{path}"/>{dots}'
        f'<text x="{left}" y="{_TOP - 6}">{escape(title)}</text>'
        f"{scale}"
        f'<text x="{left}" y="{bottom + 14}">{first:,}</text>'
        f'<text x="{left + _WIDTH}" y="{bottom + 14}" text-anchor="end">{last:,}</text>'
        f'<text x="{left + _WIDTH / 2}" y="{bottom + 28}" text-anchor="middle">step</text>'
    )
