"""Metrics of a training, sent to MLflow while it goes on."""

from collections.abc import Mapping
from typing import Any

from lorry_registry.mlflow.best_effort import BestEffort
from lorry_registry.mlflow.index import MlflowIndex


class MlflowLog:
    """Sends training metrics to an MLflow run; when MLflow goes away, training does not."""

    def __init__(self, index: MlflowIndex, run_id: str) -> None:
        self._index = index
        self._run_id = run_id
        self._mlflow = BestEffort("MLflow takes no more metrics of this training")

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics of a step, unless MLflow failed before."""
        self._mlflow.attempt(lambda: self._index.log_metrics(self._run_id, metrics, step=step))

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Log what the task leaves open, as it was chosen in training."""
        self._mlflow.attempt(lambda: self._index.log_parameters(self._run_id, parameters))
