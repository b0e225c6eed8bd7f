"""Runs a compiled pipeline on this machine, in a process of its own: ``python -m lorry_pipelines.local_run``.

A process of its own, because Kubeflow's local runner keeps its configuration in global variables and writes
its log to standard output, and because a whole run can then be ended as one group of processes.
"""

import contextlib
import sys
import warnings
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lorry_pipelines.containers import Mount, build_runner, report_exit_codes


class LocalRun(BaseModel):
    """What a local run needs to know.

    Attributes:
        pipeline: The compiled pipeline.
        arguments: Its arguments.
        root: Where steps put what they make.
        runner: ``subprocess`` or ``docker``.
        mounts: Folders for steps in containers.
        environment: Variables for steps in containers.
        network: The network of steps in containers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: Path
    arguments: dict[str, Any]
    root: Path
    runner: str
    mounts: tuple[Mount, ...] = ()
    environment: dict[str, str] = {}
    network: str = "none"


def main(path: str) -> None:
    """Run the pipeline that a JSON file describes."""
    warnings.simplefilter("ignore")
    from kfp import components, local

    run = LocalRun.model_validate_json(Path(path).read_text("utf-8"))
    pipeline: Any = components.load_component_from_file(str(run.pipeline))
    if run.runner == "subprocess":
        runner: Any = local.SubprocessRunner(use_venv=False)
    else:
        runner = build_runner(run.arguments["run"], run.mounts, run.environment, network=run.network)
    local.init(runner, pipeline_root=str(run.root), raise_on_error=True)
    with report_exit_codes() if run.runner == "docker" else contextlib.nullcontext():
        pipeline(**run.arguments)


if __name__ == "__main__":
    main(sys.argv[1])
