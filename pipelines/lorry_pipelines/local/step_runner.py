"""Runs the steps of tasks on this machine: ``python -m lorry_pipelines.local.step_runner``.

It calls the entries of the steps in the order of the graph, without compiling it. It begins to import
libraries at once, while the command that started it checks the tasks; what is to be run comes as a line on
its standard input. It ends, with all steps, when the command is gone.
"""

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, ConfigDict

from lorry_components.watchdog import follow_starter
from lorry_pipelines.local.step_processes import Step, StepProcesses, open_context, write_to
from lorry_registry.tasks.task_references import label_task

TASKS_AT_A_TIME = 2


class StepsRun(BaseModel):
    """What is to be run.

    Attributes:
        tasks: References to the tasks, in the order in which they are started.
        run: The run's id.
        store: The address of the store.
        tracking_uri: The address of MLflow, without secrets; empty: the environment's.
        checkpoints: Where checkpoints are kept.
        force: Whether tasks that are up to date are trained as well.
        root: Where steps put their outputs.
        log: Where their output goes.
        variables: What their environment has beside that of this process; none is a secret.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[str, ...]
    run: str
    store: str
    tracking_uri: str
    checkpoints: str
    force: bool
    root: Path
    log: Path
    variables: dict[str, str] = {}


def run_tasks(run: StepsRun, processes: StepProcesses) -> None:
    """Run the steps of all tasks, some tasks at a time, and report at the end what became of them."""
    processes.run_chains((_list_steps(task, run) for task in run.tasks), TASKS_AT_A_TIME)
    call = functools.partial(
        enter,
        "report",
        tasks=run.tasks,
        run=run.run,
        store=run.store,
        tracking_uri=run.tracking_uri,
        page=str(run.root / "report.html"),
    )
    processes.run(("report", call))


def enter(step: str, **arguments: Any) -> str | None:
    """Run the entry of a step, in its own process: here nothing is imported that it takes."""
    if step == "report":
        from lorry_components.steps.report.entry import main

        main(**arguments)
        return None
    from lorry_components.steps.runtime.step_context import enter_step

    return enter_step(step, **arguments)


def _list_steps(task: str, run: StepsRun) -> Iterator[Step]:
    """Yield the steps of a task in their order."""
    folder = run.root / label_task(task)
    folder.mkdir(parents=True, exist_ok=True)
    common = {"task": task, "run": run.run, "store": run.store, "tracking_uri": run.tracking_uri}
    for step, arguments in _list_arguments(folder, run):
        yield f"{folder.name}: {step}", functools.partial(enter, step, **common, **arguments)


def _list_arguments(folder: Path, run: StepsRun) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the steps in their order, each with what the graph gives it."""
    data, candidate, evaluation, decision, plot = (
        str(folder / name) for name in ("data", "candidate", "evaluation", "decision", "plot.html")
    )
    yield "prepare_data", {"force": run.force, "data": data, "metadata": {}}
    trained = {"checkpoints": run.checkpoints, "force": run.force, "data": data, "candidate": candidate}
    yield "finetune", {**trained, "metadata": {}}
    judged = {"data": data, "candidate": candidate, "evaluation": evaluation}
    yield "evaluate", {**judged, "plot": plot, "metadata": {}}
    yield "gate", {"evaluation": evaluation, "decision": decision, "metadata": {}}
    adapter = SimpleNamespace(metadata={}, uri="")
    yield "register", {**judged, "checkpoints": run.checkpoints, "decision": decision, "adapter": adapter}


def main() -> None:
    """Load libraries, wait for what is to be run, and run it."""
    context = open_context()
    line = sys.stdin.readline()
    if not line:
        # Nothing is to be run, or the command is gone; the process that steps are copies of ends, too.
        return
    follow_starter()
    run = StepsRun.model_validate_json(line)
    write_to(run.log)
    run_tasks(run, StepProcesses(context, run.log, run.variables))


if __name__ == "__main__":
    main()
