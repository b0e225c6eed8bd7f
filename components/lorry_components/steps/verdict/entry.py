"""Runs the verdict from a component's arguments.

The steps of a failed task end normally, for the sake of the other tasks, and the exit step's own failure does
not count for Kubeflow. So this step is what makes a run with a failed task a failed run.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from lorry_components.process_setup import conceal_secrets
from lorry_components.steps.report.step import summarize_run
from lorry_components.steps.runtime.outcomes import RunRecord
from lorry_registry.errors import RunFailedError
from lorry_registry.settings import Settings
from lorry_registry.stores import open_store
from lorry_registry.tasks.task_references import label_task


def main(*, tasks: Sequence[str], run: str, store: str) -> None:
    """Judge a run by the outcomes of its tasks.

    Raises:
        RunFailedError: A task failed; each is named with the step in which it did.
    """
    secrets = conceal_secrets(os.environ)
    opened = open_store(store, Settings.load(os.environ, Path.cwd()).s3)
    summary = summarize_run(RunRecord(opened, run, secrets=secrets), [label_task(task) for task in tasks])
    if summary.failed:
        raise RunFailedError(
            f"{len(summary.failed)} of {len(summary.tasks)} tasks failed",
            where=run,
            todo="; ".join(f"{task.task} in {task.step}" for task in summary.failed),
        )
