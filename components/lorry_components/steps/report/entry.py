"""Runs the report from a component's arguments."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from lorry_components.process_setup import conceal_secrets, ease_garbage_collection, quiet_libraries
from lorry_components.steps.report.facts import ReportFacts
from lorry_components.steps.report.gathering import describe_run
from lorry_components.steps.report.page import render_page
from lorry_components.steps.report.step import RunReport, report_run
from lorry_components.steps.runtime.outcomes import RunRecord
from lorry_components.steps.runtime.step_context import choose_tracking_uri
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.mlflow.best_effort import BestEffort
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings
from lorry_registry.stores import open_store
from lorry_registry.tasks.task_references import label_task

# In MLflow, the part of the report that is about the run's own task.
_PAGE_NAME = "report.html"


def main(*, tasks: Sequence[str], run: str, store: str, tracking_uri: str, page: str) -> None:
    """Report a run, whether its tasks succeeded or not: the verdict on them is a step of its own."""
    quiet_libraries()
    ease_garbage_collection()
    conceal_secrets(os.environ)
    settings = Settings.load(os.environ, Path.cwd())
    opened = open_store(store, settings.s3)
    report = report_run(RunRecord(opened, run), [label_task(task) for task in tasks], opened)
    facts = describe_run(Registry.open(settings, opened), report)
    target = Path(page)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole_text(target, render_page(facts))
    _close_mlflow_runs(report, facts, MlflowIndex(choose_tracking_uri(tracking_uri, os.environ)))


def _close_mlflow_runs(report: RunReport, facts: ReportFacts, index: MlflowIndex) -> None:
    for task, task_facts in zip(report.tasks, facts.tasks, strict=True):
        run_id = task.details.get("finetune", {}).get("mlflow_run_id")
        if not isinstance(run_id, str):
            continue
        # One for each: a run that is missing in MLflow says nothing of the others.
        mlflow = BestEffort(f"MLflow shows the run of {task.task} as still going")
        mlflow.attempt(functools.partial(index.close_run, run_id, failed=task.status == "failed"))
        page = render_page(facts.model_copy(update={"tasks": (task_facts,)}))
        mlflow.attempt(functools.partial(index.log_text, run_id, page, _PAGE_NAME))
