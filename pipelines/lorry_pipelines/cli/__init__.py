"""The ``lorry`` command: the registry's commands and the pipeline's, each imported when it is called.

Each command is in the module of its name. :mod:`~lorry_pipelines.cli.task_options` has the arguments of
commands that read task files; :mod:`~lorry_pipelines.cli.compare_table` is the end of ``compare``,
:mod:`~lorry_pipelines.cli.run_summary` that of ``run``.
"""

import importlib.metadata
import sys
from typing import NoReturn

import click

from lorry_components.process_setup import leave_process
from lorry_registry.cli import COMMANDS as _REGISTRY_COMMANDS
from lorry_registry.cli import LazyCommand, LazyGroup, Section, run_cli

_CLI = "lorry_pipelines.cli"

# --help lists the sections in the order in which they first stand here.
COMMANDS = (
    LazyCommand(
        "init", f"{_CLI}.init:start_task", "Write a task file for a table of your own.", Section.DAILY
    ),
    LazyCommand(
        "validate", f"{_CLI}.validate:validate_tasks", "Check task files without running them.", Section.DAILY
    ),
    LazyCommand(
        "plan", f"{_CLI}.plan:plan_files", "Show what tasks would take, before a run.", Section.DAILY
    ),
    LazyCommand(
        "run", f"{_CLI}.run:run_tasks", "Train, judge and register the adapters of tasks.", Section.DAILY
    ),
    LazyCommand(
        "predict", f"{_CLI}.predict:predict_texts", "Predict with the adapter of a task.", Section.DAILY
    ),
    LazyCommand(
        "compare",
        f"{_CLI}.compare:compare_methods",
        "Compare methods or options on a task: same data, same seeds.",
        Section.DAILY,
    ),
    LazyCommand(
        "doctor",
        f"{_CLI}.doctor:examine",
        "Say what works here, and what to do about the rest.",
        Section.DAILY,
    ),
    LazyCommand(
        "stale", f"{_CLI}.stale:find_stale", "Say which tasks are out of date, and why.", Section.RETRAINING
    ),
    LazyCommand(
        "retrain", f"{_CLI}.retrain:retrain_tasks", "Train what is out of date, once.", Section.RETRAINING
    ),
    LazyCommand(
        "report", f"{_CLI}.report:report_tasks", "Report what runs made of tasks.", Section.RETRAINING
    ),
    LazyCommand(
        "drift",
        f"{_CLI}.drift:find_drift",
        "Say whether new inputs are still like the training rows.",
        Section.RETRAINING,
    ),
    LazyCommand(
        "serve", f"{_CLI}.serve:serve_tasks", "Serve the champions of tasks over HTTP.", Section.SHARING
    ),
    LazyCommand("export", f"{_CLI}.export:export", "Hand adapters to other programs.", Section.SHARING),
    LazyCommand(
        "bases", f"{_CLI}.bases:bases", "Push and list the bases that tasks call by name.", Section.SHARING
    ),
    LazyCommand("submit", f"{_CLI}.submit:submit_tasks", "Run tasks on a Kubeflow cluster.", Section.CLUSTER),
    LazyCommand(
        "compile", f"{_CLI}.compile:compile_tasks", "Compile the pipeline for Kubeflow.", Section.CLUSTER
    ),
    *_REGISTRY_COMMANDS,
    LazyCommand(
        "reconcile", f"{_CLI}.reconcile:reconcile_tasks", "Make MLflow match the ledger.", Section.UPKEEP
    ),
)


@click.group(
    cls=LazyGroup,
    lazy_commands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  lorry run tasks/*.yaml                  train what is out of date, and register it
  lorry tasks                             which adapter belongs to which task
  lorry predict reviews "Great value!"    predict with the task's adapter

Settings: LORRY_HOME, LORRY_STORE, LORRY_BASES, MLFLOW_TRACKING_URI, LORRY_IMAGE, LORRY_SLIM_IMAGE,
or lorry.toml.""",
)
@click.version_option(importlib.metadata.version("lorry"), prog_name="lorry")
def lorry() -> None:
    """Many downstream tasks on one frozen base model: a small adapter for each, and a registry of them."""


def main() -> NoReturn:
    """Run the command line of this process, and end it."""
    try:
        run_cli(lorry)
    except SystemExit as end:
        if "torch" in sys.modules and isinstance(end.code, int):
            leave_process(end.code)
        raise


__all__ = ["COMMANDS", "lorry", "main"]
