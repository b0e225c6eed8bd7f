"""The learning curve of a training: its losses and its scores on the validation rows, kept for the report."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

LogMetrics = Callable[[Mapping[str, float], int], None]

# Points of a line that a picture in a report can show.
_MOST_POINTS = 60


class LearningCurve(BaseModel):
    """What a training logged.

    Attributes:
        metric: The metric of the validation rows.
        losses: Steps and mean training losses.
        scores: Steps and the metric.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    metric: str
    losses: tuple[tuple[int, float], ...] = ()
    scores: tuple[tuple[int, float], ...] = ()


class CurveLog:
    """Passes metrics on, and keeps those of the curve.

    Args:
        log: Where metrics go.
        metric: The metric of the validation rows.
    """

    def __init__(self, log: LogMetrics, metric: str) -> None:
        self._log = log
        self._metric = metric
        self._losses: dict[int, float] = {}
        self._scores: dict[int, float] = {}

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics of a step."""
        self._keep(metrics.get("train/loss"), metrics.get(f"validation/{self._metric}"), step)
        self._log(metrics, step)

    def take_over(self, state: Path) -> None:
        """Read what an interrupted training logged before, from the state in its checkpoint."""
        for entry in json.loads(state.read_text("utf-8")).get("log_history", ()):
            self._keep(entry.get("loss"), entry.get(f"eval_{self._metric}"), entry["step"])

    def describe(self) -> dict[str, JsonValue]:
        """Return the curve for the report: some points of each line, the first and the last among them."""
        curve = LearningCurve(metric=self._metric, losses=_thin(self._losses), scores=_thin(self._scores))
        return curve.model_dump(mode="json")

    def _keep(self, loss: float | None, score: float | None, step: int) -> None:
        if loss is not None:
            self._losses[step] = loss
        if score is not None:
            self._scores[step] = score


def _thin(points: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    ordered = sorted(points.items())
    last = len(ordered) - 1
    count = min(len(ordered), _MOST_POINTS)
    places = [round(number * last / max(1, count - 1)) for number in range(count)]
    return tuple((step, float(f"{value:.5g}")) for step, value in (ordered[place] for place in places))
