"""Shows a study in MLflow: a run in the experiment of the task's studies, and below it one for each trial."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorry_components.steps.evaluate.evaluation_report import PLOT_NAME, PREDICTIONS_NAME
from lorry_components.steps.finetune.run_inputs import list_parameters
from lorry_components.studies.recommendation import Recommendation
from lorry_components.studies.study_summary import TrialOutcome
from lorry_components.studies.trial_run import read_history
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.mlflow.best_effort import BestEffort
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.mlflow.version_card import NOTE_TAG, STATUS_TAG
from lorry_registry.mlflow.views import build_view

_STATE = "mlflow.json"
# MLflow's own tag: its pages fold the runs below their parent.
_PARENT_TAG = "mlflow.parentRunId"
_REPEATED = "failed, repeated"


class StudyTracker:
    """Logs a study. If MLflow fails, it warns once and the study goes on.

    Run ids are kept with the study's files: when it is started again, it continues in the same runs.

    Args:
        index: MLflow.
        task: The task.
        study: The study's name, for people.
        folder: The study's files.
        warn: Called once if MLflow cannot be used.
        find_registry: Returns the id of the registry whose experiment it is; None for a registry without one.
    """

    def __init__(
        self,
        index: MlflowIndex,
        *,
        task: str,
        study: str,
        folder: Path,
        warn: Callable[[str], None],
        find_registry: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._index = index
        self._find_registry = find_registry
        self._task = task
        self._study = study
        self._path = folder / _STATE
        self._mlflow = BestEffort("MLflow does not show this study", warn)
        self._parent = ""
        self._children: dict[str, str] = {}
        self._failed: dict[str, str] = {}

    def has_all(self, digests: Iterable[str]) -> bool:
        """Return whether all trials have been logged before, so that nothing is left to do."""
        known = self._read_state()
        return bool(known) and set(digests) <= known["children"].keys()

    def open(self, parameters: Mapping[str, Any]) -> None:
        """Open the parent run, or go on in that of an earlier start."""
        self._mlflow.attempt(lambda: self._open(parameters))

    def log_trial(self, outcome: TrialOutcome) -> None:
        """Log a trial, unless it has been logged: its recipe, its curves, its results."""
        if self._parent and outcome.trial.digest not in self._children:
            self._mlflow.attempt(lambda: self._log_trial(outcome))

    def close(
        self,
        artifacts: Sequence[Path],
        metrics: Mapping[str, float],
        *,
        failed: bool,
        recommendation: Recommendation | None = None,
    ) -> None:
        """Log the study's table, its plot and what it recommends, and end its run."""

        def finish() -> None:
            if recommendation is not None:
                self._index.set_tags(self._parent, _describe_recommendation(recommendation))
            for path in artifacts:
                self._index.log_artifact(self._parent, path)
            self._index.log_metrics(self._parent, metrics)
            self._index.close_run(self._parent, failed)

        if self._parent:
            self._mlflow.attempt(finish)

    def _open(self, parameters: Mapping[str, Any]) -> None:
        known = self._read_state()
        earlier = known.get("parent")
        is_there = earlier is not None and self._index.has_run(earlier)
        self._parent = self._index.open_run(
            self._task,
            name=self._study,
            tags={"lorry.study": self._study},
            run_id=earlier if is_there else None,
            registry_id=self._find_registry(),
            of_studies=True,
        )
        self._children = dict(known["children"]) if is_there else {}
        self._failed = dict(known.get("failed", {})) if is_there else {}
        if not is_there:
            self._index.log_parameters(self._parent, parameters)
        self._write_state()

    def _log_trial(self, outcome: TrialOutcome) -> None:
        trial, result = outcome.trial, outcome.result
        run_id = self._index.open_run(
            self._task,
            name=trial.name,
            tags={
                _PARENT_TAG: self._parent,
                "lorry.study": self._study,
                "lorry.kind": trial.spec.kind,
                "lorry.base": trial.spec.base.model,
                "lorry.method": trial.spec.method.name if trial.variant.is_trained else "none",
            },
            of_studies=True,
        )
        parameters = list_parameters(trial.spec)
        if result is not None and result.training is not None:
            # The task may leave them open.
            chosen = {"learning_rate": result.training.learning_rate, "steps": result.training.steps or None}
            parameters["train"] = parameters["train"] | chosen
        self._index.log_parameters(run_id, parameters)
        former = self._failed.pop(trial.digest, None)
        if former is not None:
            self._index.set_tags(former, {STATUS_TAG: _REPEATED, NOTE_TAG: f"Repeated by the run {run_id}."})
        if result is None:
            self._index.set_tags(run_id, {STATUS_TAG: "failed", "lorry.error": outcome.error})
            self._index.close_run(run_id, failed=True)
            self._failed[trial.digest] = run_id
            self._write_state()
            return
        for step, metrics in read_history(outcome.folder.history):
            self._index.log_metrics(run_id, metrics, step=step)
        self._index.log_metrics(run_id, _list_metrics(outcome))
        view = build_view(result.evaluation.primary, of_studies=True)
        self._index.show_view(self._task, view, of_studies=True)
        for name in (PLOT_NAME, PREDICTIONS_NAME):
            self._index.log_artifact(run_id, outcome.folder.evaluation / name, "evaluation")
        self._index.close_run(run_id, failed=False)
        self._children[trial.digest] = run_id
        self._write_state()

    def _read_state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        # Runs in another MLflow do not count.
        return state if state["address"] == self._index.address else {}

    def _write_state(self) -> None:
        state = {
            "address": self._index.address,
            "parent": self._parent,
            "children": self._children,
            "failed": self._failed,
        }
        write_whole_text(self._path, f"{json.dumps(state, indent=2)}\n")


def _describe_recommendation(recommendation: Recommendation) -> dict[str, str]:
    """Return the tags that say what to choose, and the text that MLflow shows as the run's description."""
    text = (
        f"Recommended: **{recommendation.label}**. {recommendation.reason}\n\n"
        f"```yaml\n{recommendation.section.strip()}\n```"
    )
    return {"lorry.recommendation": recommendation.label, NOTE_TAG: text}


def _list_metrics(outcome: TrialOutcome) -> dict[str, float]:
    assert outcome.result is not None
    result = outcome.result
    # By the rows of one part for all trials; the names of the parts are those of a training's curves.
    metrics = {f"study/{name}": metric.value for name, metric in result.evaluation.metrics.items()}
    training = result.training
    if training is not None:
        metrics |= {
            "trained_parameters": training.parameters.adapter,
            "adapter_bytes": training.adapter_bytes,
            "peak_memory_bytes": training.peak_memory.size_bytes,
        }
        if training.seconds is not None:
            metrics["seconds"] = training.seconds
    return metrics
