"""Runs the evaluation step from a component's arguments."""

import base64
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from lorry_components.data.examples import Example
from lorry_components.data.prepared import load_part
from lorry_components.steps.evaluate.evaluation_report import (
    PLOT_NAME,
    PREDICTIONS_NAME,
    REPORT_NAME,
    EvaluationReport,
)
from lorry_components.steps.evaluate.step import evaluate
from lorry_components.steps.runtime.outcomes import run_step
from lorry_components.steps.runtime.step_context import StepContext
from lorry_components.training.probe.feature_cache import FeatureCache
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.mlflow.best_effort import BestEffort
from lorry_registry.mlflow.views import list_results

_TELLING_CHARACTERS, _EXAMPLE_CHARACTERS = 20, 120


def main(
    *,
    task: str,
    run: str,
    store: str,
    tracking_uri: str,
    data: str,
    candidate: str,
    evaluation: str,
    plot: str,
    metadata: dict[str, Any],
) -> str:
    """Evaluate a task's candidate; return whether the graph goes on."""
    entry = StepContext.open("evaluate", task=task, run=run, store=store, tracking_uri=tracking_uri)

    def body() -> dict[str, JsonValue]:
        target = Path(evaluation)
        report = evaluate(
            entry.task,
            Path(data),
            Path(candidate),
            target,
            registry=entry.registry,
            progress=entry.progress,
            features=FeatureCache(entry.settings.features, limit=entry.settings.cache_bytes),
        )
        values = {name: metric.value for name, metric in report.evaluation.metrics.items()}
        # A NaN in a metric breaks Kubeflow's serialization.
        metadata.update({name: value for name, value in values.items() if math.isfinite(value)})
        _write_page(Path(plot), target / PLOT_NAME, entry.spec.name)
        _log_to_mlflow(entry, list_results(report.evaluation), target)
        return {**_describe(report), "example": find_example(load_part(Path(data), "test"))}

    return run_step(entry.record, entry.spec.name, "evaluate", body)


def find_example(examples: Sequence[Example]) -> dict[str, JsonValue] | None:
    """Return a short test row that can be typed as a command's arguments; None: all are long or odd."""
    typed = [
        example.row
        for example in examples
        if all(text.isprintable() and text.strip() for text in example.row.values())
    ]

    def rank(row: Mapping[str, str]) -> tuple[bool, int]:
        length = sum(map(len, row.values()))
        # The very shortest is often a single word that tells little.
        return length < _TELLING_CHARACTERS, length

    shortest = min(typed, key=rank, default=None)
    if shortest is None or sum(map(len, shortest.values())) > _EXAMPLE_CHARACTERS:
        return None
    return dict(shortest)


def _describe(report: EvaluationReport) -> dict[str, JsonValue]:
    evaluation = report.evaluation
    headline, probe = evaluation.headline, evaluation.linear_probe
    return {
        "metric": evaluation.primary,
        "metric_title": evaluation.name_metric(evaluation.primary),
        "value": headline.value,
        "interval": [headline.low, headline.high],
        "examples": evaluation.examples,
        "single_answer": report.single_answer,
        "baselines": [baseline.model_dump(mode="json") for baseline in report.evaluation.baselines],
        "linear_probe": probe.model_dump(mode="json") if probe else None,
        "picture": report.picture.model_dump(mode="json") if report.picture else None,
        "champion": report.champion.model_dump(mode="json") if report.champion else None,
    }


def _log_to_mlflow(entry: StepContext, metrics: dict[str, float], folder: Path) -> None:
    """Show the evaluation in MLflow. When MLflow cannot be reached, the adapter is judged all the same."""
    run_id = entry.find_mlflow_run()
    if run_id is None:
        return
    mlflow = BestEffort(f"MLflow does not show the evaluation of {entry.spec.name}")
    mlflow.attempt(lambda: entry.index.log_metrics(run_id, metrics))
    for name in (PLOT_NAME, PREDICTIONS_NAME, REPORT_NAME):
        mlflow.attempt(functools.partial(entry.index.log_artifact, run_id, folder / name, "evaluation"))


def _write_page(page: Path, image: Path, title: str) -> None:
    encoded = base64.b64encode(image.read_bytes()).decode("ascii")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole_text(page, f'<img alt="{title}" src="data:image/png;base64,{encoded}">\n')
