"""The plot of an evaluation."""

import io
from collections.abc import Sequence
from pathlib import Path

from lorry_components.task_types import Prediction, Target, TaskType
from lorry_registry.manifest import Evaluation
from lorry_registry.whole_files import write_whole


def plot_evaluation(
    path: Path,
    *,
    title: str,
    task_type: TaskType,
    targets: Sequence[Target],
    predictions: Sequence[Prediction],
    evaluation: Evaluation,
) -> None:
    """Write a PNG: the task type's plot of the test rows, titled with the primary metric and its interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot's global figure: several steps may run in one process.
    figure = Figure(figsize=(5.4, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    task_type.plot_predictions(axes, targets, predictions)
    headline = evaluation.headline
    axes.set_title(
        f"{title}\n{evaluation.name_metric(evaluation.primary)} {headline.value:.3f}  "
        f"[{headline.low:.3f}, {headline.high:.3f}]  n = {evaluation.examples}",
        fontsize=10,
    )
    axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=130)
    write_whole(path, image.getvalue())
