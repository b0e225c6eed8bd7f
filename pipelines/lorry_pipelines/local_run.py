"""Runs a compiled pipeline on this machine, in a process of its own: ``python -m lorry_pipelines.local_run``.

A process of its own, because Kubeflow's local runner keeps its configuration in global variables and writes
its log to standard output, and because a whole run can then be ended as one group of processes.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class Mount(BaseModel):
    """A folder of this machine that steps in containers see, at the same or another place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Path
    target: Path
    is_read_only: bool


class LocalRun(BaseModel):
    """What a local run needs to know.

    Attributes:
        pipeline: The compiled pipeline.
        arguments: Its arguments.
        root: Where steps put what they make.
        runner: ``subprocess`` or ``docker``.
        mounts: Folders for steps in containers.
        environment: Variables for steps in containers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: Path
    arguments: dict[str, Any]
    root: Path
    runner: str
    mounts: tuple[Mount, ...] = ()
    environment: dict[str, str] = {}


def main(path: str) -> None:
    """Run the pipeline that a JSON file describes."""
    warnings.simplefilter("ignore")
    from kfp import components, local

    run = LocalRun.model_validate_json(Path(path).read_text("utf-8"))
    pipeline: Any = components.load_component_from_file(str(run.pipeline))
    local.init(_build_runner(run), pipeline_root=str(run.root), raise_on_error=True)
    pipeline(**run.arguments)


def _build_runner(run: LocalRun) -> Any:
    from kfp import local

    if run.runner == "subprocess":
        return local.SubprocessRunner(use_venv=False)
    from docker.types import Mount as DockerMount

    mounts = [
        DockerMount(str(mount.target), str(mount.source), type="bind", read_only=mount.is_read_only)
        for mount in run.mounts
    ]
    return local.DockerRunner(mounts=mounts, environment=run.environment)


if __name__ == "__main__":
    main(sys.argv[1])
