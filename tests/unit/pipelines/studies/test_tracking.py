"""A study in MLflow: a run for it, one in it for each trial, and no harm when MLflow is gone."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.steps.evaluate.evaluation_report import PLOT_NAME
from lorry_components.studies.recommendation import Recommendation
from lorry_components.studies.study_summary import TrialOutcome
from lorry_components.studies.trials import Trial
from lorry_components.studies.variants import Variant
from lorry_pipelines.studies.study_tracking import StudyTracker
from lorry_registry.errors import TrackingError


class RecordingIndex:
    """Stands in for MLflow: takes note of runs, and is gone when it is told to be."""

    def __init__(self, address: str = "there") -> None:
        self.address = address
        self.runs: dict[str, dict[str, Any]] = {}
        self.view = ""
        self.is_gone = False

    def _reach(self) -> None:
        if self.is_gone:
            raise TrackingError("cannot reach it", where=self.address)

    def open_run(
        self,
        task: str,
        *,
        name: str,
        tags: dict[str, str],
        run_id: str | None = None,
        registry_id: str | None = None,
        of_studies: bool = False,
    ) -> str:
        self._reach()
        assert of_studies, "studies are kept apart from trainings"
        run_id = run_id or f"run-{len(self.runs)}"
        run = self.runs.setdefault(run_id, {"task": task, "name": name, "metrics": {}, "artifacts": []})
        run |= {"tags": tags, "status": "RUNNING"}
        return run_id

    def has_run(self, run_id: str) -> bool:
        self._reach()
        return run_id in self.runs

    def log_parameters(self, run_id: str, parameters: dict[str, Any]) -> None:
        self._reach()
        self.runs[run_id]["parameters"] = parameters

    def log_metrics(self, run_id: str, metrics: dict[str, float], step: int | None = None) -> None:
        self._reach()
        self.runs[run_id]["metrics"] |= {(name, step): value for name, value in metrics.items()}

    def show_view(self, task: str, view: str, *, of_studies: bool) -> bool:
        self._reach()
        assert of_studies
        self.view = view
        return True

    def log_artifact(self, run_id: str, path: Path, folder: str | None = None) -> None:
        self._reach()
        self.runs[run_id]["artifacts"].append(path.name)

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        self._reach()
        self.runs[run_id]["tags"] = self.runs[run_id]["tags"] | tags

    def close_run(self, run_id: str, failed: bool) -> None:
        self._reach()
        self.runs[run_id]["status"] = "FAILED" if failed else "FINISHED"


@pytest.fixture
def outcomes(
    compare: Callable[..., list[Variant]],
    lay_out: Callable[..., list[Trial]],
    conclude: Callable[..., TrialOutcome],
) -> list[TrialOutcome]:
    done, failed = lay_out(compare("lora,bitfit"))
    found = [conclude(done, [True, False]), conclude(failed, (), error="the loss became nan")]
    (found[0].folder.evaluation / PLOT_NAME).write_bytes(b"a picture")
    found[0].folder.history.write_text('{"step": 2, "metrics": {"train/loss": 0.5}}\n')
    return found


@pytest.fixture
def open_tracker(tmp_path: Path) -> Callable[..., tuple[StudyTracker, list[str]]]:
    def build(index: Any) -> tuple[StudyTracker, list[str]]:
        warnings: list[str] = []
        tracker = StudyTracker(index, task="tiny", study="compare", folder=tmp_path, warn=warnings.append)
        return tracker, warnings

    return build


def log_all(tracker: StudyTracker, outcomes: Iterable[TrialOutcome], *, failed: bool = True) -> None:
    tracker.open({"seeds": [0]})
    for outcome in outcomes:
        tracker.log_trial(outcome)
    tracker.close([], {"study/lora": 0.5}, failed=failed)


def test_cells_are_runs_below_the_studys(outcomes: list[TrialOutcome], open_tracker: Any) -> None:
    index = RecordingIndex()
    tracker, warnings = open_tracker(index)
    log_all(tracker, outcomes)
    parent, done, failed = index.runs.values()
    assert not warnings
    assert parent["status"] == "FAILED"
    assert parent["metrics"] == {("study/lora", None): 0.5}
    assert [run["tags"]["mlflow.parentRunId"] for run in (done, failed)] == ["run-0", "run-0"]
    assert done["status"] == "FINISHED"
    assert done["parameters"]["method"]["name"] == "lora"
    assert done["parameters"]["train"]["learning_rate"] == 0.01
    assert "learning_rate" not in done["parameters"]
    assert done["metrics"]["train/loss", 2] == 0.5
    assert done["metrics"]["study/accuracy", None] == 0.5
    assert done["metrics"]["trained_parameters", None] == 1000
    assert done["artifacts"] == ["predictions.png", "predictions.jsonl"]
    assert "study/accuracy" in index.view
    assert "lorry.recommendation" in index.view
    assert failed["status"] == "FAILED"
    assert failed["tags"]["lorry.error"] == "the loss became nan"


def test_a_study_goes_on_in_its_runs(outcomes: list[TrialOutcome], open_tracker: Any) -> None:
    index = RecordingIndex()
    first, _ = open_tracker(index)
    log_all(first, outcomes[:1])
    again, _ = open_tracker(index)
    assert again.has_all([outcomes[0].trial.digest])
    assert not again.has_all([outcome.trial.digest for outcome in outcomes])
    log_all(again, outcomes, failed=False)
    assert [run["name"] for run in index.runs.values()] == ["compare", "lora, seed 0", "bitfit, seed 0"]
    assert index.runs["run-0"]["status"] == "FINISHED"


def test_a_failed_trial_that_was_repeated_says_so(
    outcomes: list[TrialOutcome], conclude: Callable[..., TrialOutcome], open_tracker: Any
) -> None:
    index = RecordingIndex()
    log_all(open_tracker(index)[0], outcomes)
    assert index.runs["run-2"]["tags"]["lorry.status"] == "failed"
    log_all(open_tracker(index)[0], outcomes)
    assert index.runs["run-2"]["tags"]["lorry.status"] == "failed, repeated"
    assert index.runs["run-2"]["tags"]["mlflow.note.content"] == "Repeated by the run run-3."
    assert index.runs["run-3"]["tags"]["lorry.status"] == "failed"
    done = conclude(outcomes[1].trial, [True, False])
    (done.folder.evaluation / PLOT_NAME).write_bytes(b"a picture")
    done.folder.history.write_text("")
    log_all(open_tracker(index)[0], [outcomes[0], done], failed=False)
    assert index.runs["run-3"]["tags"]["lorry.status"] == "failed, repeated"
    assert "lorry.status" not in index.runs["run-4"]["tags"]
    assert len(index.runs) == 5


def test_another_mlflow_gets_runs_of_its_own(outcomes: list[TrialOutcome], open_tracker: Any) -> None:
    log_all(open_tracker(RecordingIndex())[0], outcomes)
    other = RecordingIndex("elsewhere")
    log_all(open_tracker(other)[0], outcomes)
    assert len(other.runs) == 3


def test_a_study_goes_on_without_mlflow(outcomes: list[TrialOutcome], open_tracker: Any) -> None:
    index = RecordingIndex()
    tracker, warnings = open_tracker(index)
    tracker.open({})
    index.is_gone = True
    for outcome in outcomes:
        tracker.log_trial(outcome)
    tracker.close([], {}, failed=False)
    assert len(warnings) == 1
    assert "MLflow does not show this study: there: cannot reach it" in warnings[0]


def test_nothing_is_logged_of_a_study_that_was_not_opened(
    outcomes: list[TrialOutcome], open_tracker: Any
) -> None:
    index = RecordingIndex()
    tracker, _ = open_tracker(index)
    tracker.log_trial(outcomes[0])
    tracker.close([], {}, failed=False)
    assert not index.runs


def test_a_study_says_what_it_recommends(outcomes: list[TrialOutcome], open_tracker: Any) -> None:
    index = RecordingIndex()
    tracker, _ = open_tracker(index)
    tracker.open({})
    chosen = Recommendation("lora r=4", "method:\n  name: lora\n", "It is the smallest of the best.")
    tracker.close([], {}, failed=False, recommendation=chosen)
    (parent,) = index.runs.values()
    assert parent["tags"]["lorry.recommendation"] == "lora r=4"
    assert parent["tags"]["mlflow.note.content"] == (
        "Recommended: **lora r=4**. It is the smallest of the best.\n\n```yaml\nmethod:\n  name: lora\n```"
    )
