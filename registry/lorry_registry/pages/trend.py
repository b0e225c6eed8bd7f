"""A task's metric over its versions, as a small picture in SVG that needs no colour to be read."""

from collections.abc import Sequence
from html import escape

from lorry_registry.ledger.version_status import VersionStatus, name_version_status
from lorry_registry.manifest import Baseline
from lorry_registry.pages.task_overview import VersionOverview

WIDTH, HEIGHT = 190, 44
# Numbers of the scale stand to the right of the marks.
_SCALE_WIDTH = 38
_MARGIN_X, _MARGIN_Y = 8.0, 6.0
_WIDEST_STEP = 34.0
_CROSS = 3.0


def draw_trend(versions: Sequence[VersionOverview], metric: str, baseline: Baseline | None = None) -> str:
    """Return the picture: a mark for each version, with its interval, and a line through the champions.

    A dot passed the gate, a cross was refused or rolled back, a ring is around the champion. A version of
    which nothing is known leaves a gap. Without any value the picture is empty text.

    Args:
        versions: The versions, the oldest first.
        metric: The metric's name.
        baseline: A trivial baseline, drawn as a dashed line; None: none is known.
    """
    measured = [version for version in versions if version.metric is not None]
    if not measured:
        return ""
    standard = [baseline.value] if baseline is not None else []
    low = min([*standard, *(version.metric.low for version in measured if version.metric)])
    high = max([*standard, *(version.metric.high for version in measured if version.metric)])
    right = WIDTH - _SCALE_WIDTH
    step = min(_WIDEST_STEP, (right - 2 * _MARGIN_X) / max(1, len(versions) - 1))

    def place_x(index: int) -> float:
        return _MARGIN_X + index * step

    def place_y(value: float) -> float:
        if high <= low:
            return HEIGHT / 2
        return _MARGIN_Y + (high - value) / (high - low) * (HEIGHT - 2 * _MARGIN_Y)

    bars, line, marks = [], [], []
    for index, version in enumerate(versions):
        if version.metric is None:
            continue
        x, y = place_x(index), place_y(version.metric.value)
        top, bottom = place_y(version.metric.high), place_y(version.metric.low)
        bars.append(f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>')
        if is_sound(version.status):
            line.append(f"{x:.1f},{y:.1f}")
        marks.append(_draw_mark(version.status, x, y))
    dashes = "".join(
        f'<line class="baseline" x1="0" x2="{right}" y1="{place_y(value):.1f}" y2="{place_y(value):.1f}"/>'
        for value in standard
    )
    scale = "".join(
        f'<text class="scale" x="{WIDTH}" y="{place_y(value) + 3.5:.1f}" text-anchor="end">{value:.2f}</text>'
        for value in ((high, low) if high > low else (high,))
    )
    path = f'<polyline class="line" points="{" ".join(line)}"/>' if len(line) > 1 else ""
    label = escape(describe_trend(versions, metric, baseline), quote=True)
    return (
        f'<svg class="trend" role="img" aria-label="{label}" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}"><title>{label}</title>{dashes}{scale}{"".join(bars)}{path}'
        f"{''.join(marks)}</svg>"
    )


def describe_trend(versions: Sequence[VersionOverview], metric: str, baseline: Baseline | None = None) -> str:
    """Return in words what the picture shows, for screen readers."""
    parts = [
        f"v{version.number} {version.metric.value:.3f} {name_version_status(version.status)}"
        if version.metric
        else f"v{version.number} not known"
        for version in versions
    ]
    parts += [f"{baseline.name} {baseline.value:.3f}"] if baseline is not None else []
    return f"{metric}: {', '.join(parts)}"


def is_sound(status: VersionStatus) -> bool:
    """Return whether a version passed and was not rolled back."""
    return status.decision == "promoted"


def _draw_mark(status: VersionStatus, x: float, y: float) -> str:
    if not is_sound(status):
        return (
            f'<path class="refused" d="M{x - _CROSS:.1f} {y - _CROSS:.1f}l{2 * _CROSS:g} {2 * _CROSS:g}'
            f'm0 {-2 * _CROSS:g}l{-2 * _CROSS:g} {2 * _CROSS:g}"/>'
        )
    if status.role == "champion":
        return (
            f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="5.2"/>'
            f'<circle class="champion" cx="{x:.1f}" cy="{y:.1f}" r="2.8"/>'
        )
    return f'<circle class="former" cx="{x:.1f}" cy="{y:.1f}" r="2.4"/>'
