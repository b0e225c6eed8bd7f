"""Runs a compiled pipeline on this machine: ``python -m lorry_pipelines.local.runner_process``.

A process of its own, because Kubeflow's local runner keeps its configuration in global variables and writes
its log to standard output, and because a whole run can then be ended as one group of processes. It ends
when its parent is gone.
"""

import contextlib
import functools
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lorry_components.lifelines import follow_starter
from lorry_components.process_setup import leave_process, skip_iri_grammar
from lorry_pipelines.local.containers import Mount, build_runner, remove_containers, report_exit_codes


class LocalRun(BaseModel):
    """What a local run needs to know.

    Attributes:
        pipeline: The compiled pipeline.
        arguments: Its arguments.
        root: Where steps put their outputs.
        runner: ``subprocess`` or ``docker``.
        mounts: Folders for steps in containers.
        environment: Variables for steps in containers; they are written to a file, so none is a secret.
        passed_on: Prefixes of the variables that containers get from this process's environment.
        network: The network of steps in containers.
        user: The user of steps in containers, ``UID:GID``; empty: the one of this process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: Path
    arguments: dict[str, Any]
    root: Path
    runner: str
    mounts: tuple[Mount, ...] = ()
    environment: dict[str, str] = {}
    passed_on: tuple[str, ...] = ()
    network: str = "none"
    user: str = ""


def main(path: str) -> None:
    """Run the pipeline that a JSON file describes.

    Args:
        path: The file.
    """
    warnings.simplefilter("ignore")
    skip_iri_grammar()
    from kfp import components, local

    run = LocalRun.model_validate_json(Path(path).read_text("utf-8"))
    # The starter holds the locks: without it, a second run would train the same tasks beside this one.
    follow_starter(
        functools.partial(remove_containers, run.arguments["run"]) if run.runner == "docker" else None
    )
    pipeline: Any = components.load_component_from_file(str(run.pipeline))
    if run.runner == "subprocess":
        runner: Any = local.SubprocessRunner(use_venv=False)
    else:
        passed = {name: value for name, value in os.environ.items() if name.startswith(run.passed_on)}
        runner = build_runner(
            run.arguments["run"],
            run.mounts,
            passed | run.environment,
            network=run.network,
            user=run.user,
        )
    local.init(runner, pipeline_root=str(run.root), raise_on_error=True)
    with contextlib.ExitStack() as stack:
        if run.runner == "docker":
            stack.enter_context(report_exit_codes())
        pipeline(**run.arguments)


if __name__ == "__main__":
    main(sys.argv[1])
    leave_process(0)
